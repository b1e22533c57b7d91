//! The memory regions of the world: views by namespace and name, and the jobs under way that name one. No I/O.

use std::{borrow::Cow, collections::HashSet};

use kube::api::ObjectMeta;
use nixl_transfer_crds::{MemoryRegion, TransferJob};

use super::{Change, World, uid};
use crate::cluster::RegionView;

type Key = (String, String);

fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// Whether the job reads or writes the region.
fn names(job: &TransferJob, (namespace, name): &Key) -> bool {
    let spec = &job.spec;
    let source = spec.source.place.memory();
    let destinations = spec.destinations.iter().filter_map(|to| to.place.memory());
    job.metadata.namespace.as_ref() == Some(namespace)
        && source.into_iter().chain(destinations).any(|memory| memory.name == *name)
}

impl World {
    pub(super) fn regions(&mut self, change: Change<MemoryRegion>) {
        match change {
            Change::Put(region) => self.change_region(key(&region.metadata), Some(RegionView::of(&region))),
            Change::Gone(gone) => {
                // One made again under the name may have been seen first.
                let key = key(&gone);
                if self.cluster.regions.get(&key).is_some_and(|view| view.uid == uid(&gone)) {
                    self.change_region(key, None);
                }
            }
            Change::All(regions, _) => {
                let listed: HashSet<Key> = regions.iter().map(|region| key(&region.metadata)).collect();
                let known: Vec<Key> = self.cluster.regions.keys().cloned().collect();
                for vanished in known.into_iter().filter(|key| !listed.contains(key)) {
                    self.change_region(vanished, None);
                }
                for region in regions {
                    self.change_region(key(&region.metadata), Some(RegionView::of(&region)));
                }
            }
        }
    }

    fn change_region(&mut self, key: Key, view: Option<RegionView>) {
        if self.cluster.regions.get(&key) == view.as_ref() {
            return;
        }
        let jobs = self.open_jobs().map(Cow::Borrowed).chain(self.following_jobs());
        let concerned: Vec<String> =
            jobs.filter(|job| names(job, &key)).map(|job| uid(&job.metadata)).collect();
        self.dirty.extend(concerned);
        match view {
            Some(view) => self.cluster.regions.insert(key, view),
            None => self.cluster.regions.remove(&key),
        };
    }
}
