//! The objects of one kind, as the world keeps them: whole while something goes on, packed once it rests. Packing loses
//! nothing but what is below a second in times, as on the way to the API server: what comes out is compared with what went
//! in. Thousands of finished jobs are so alike that each, packed with the first one as the dictionary, takes some hundred
//! bytes with its task instead of nine thousand. Pure.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use kube::api::ObjectMeta;
use serde::{Serialize, de::DeserializeOwned};

use super::{uid, version};

/// An object.
#[derive(Debug)]
enum Kept<K> {
    Whole(Box<K>),
    Packed(Packed),
}

#[derive(Debug)]
struct Packed {
    version: u64,
    uid: Box<str>,
    /// Of the JSON.
    length: u32,
    bytes: Box<[u8]>,
}

/// Objects by key.
#[derive(Debug)]
pub struct Store<K> {
    kept: HashMap<String, Kept<K>>,
    metadata: fn(&K) -> &ObjectMeta,
    /// JSON of the first object that was packed.
    dictionary: Box<[u8]>,
    /// Kept because a new one takes 256 KiB.
    compress: Option<Compress>,
}

impl<K: Clone + Serialize + DeserializeOwned> Store<K> {
    /// Nothing yet; `metadata` is where a kind keeps its metadata.
    pub fn new(metadata: fn(&K) -> &ObjectMeta) -> Self {
        Self { kept: HashMap::new(), metadata, dictionary: Box::default(), compress: None }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether there is one with this key.
    pub fn contains(&self, key: &str) -> bool {
        self.kept.contains_key(key)
    }

    /// The object, unpacked if need be.
    pub fn get(&self, key: &str) -> Option<Cow<'_, K>> {
        match self.kept.get(key)? {
            Kept::Whole(object) => Some(Cow::Borrowed(object)),
            Kept::Packed(packed) => self.unpack(packed).map(Cow::Owned),
        }
    }

    /// The object, unless it is packed.
    pub fn whole(&self, key: &str) -> Option<&K> {
        match self.kept.get(key)? {
            Kept::Whole(object) => Some(object),
            Kept::Packed(_) => None,
        }
    }

    /// The version of the object.
    pub fn version(&self, key: &str) -> Option<u64> {
        self.kept.get(key).map(|kept| self.identity(kept).0)
    }

    /// The UID of the object.
    pub fn uid(&self, key: &str) -> Option<&str> {
        self.kept.get(key).map(|kept| self.identity(kept).1)
    }

    /// Key, version and UID of each.
    pub fn identities(&self) -> impl Iterator<Item = (&str, u64, &str)> {
        self.kept.iter().map(|(key, kept)| {
            let (version, uid) = self.identity(kept);
            (key.as_str(), version, uid)
        })
    }

    fn identity<'a>(&self, kept: &'a Kept<K>) -> (u64, &'a str) {
        match kept {
            Kept::Whole(object) => {
                let metadata = (self.metadata)(object);
                (version(metadata), metadata.uid.as_deref().unwrap_or_default())
            }
            Kept::Packed(packed) => (packed.version, &packed.uid),
        }
    }

    /// Keeps the object, whole, in place of an older one.
    pub fn insert(&mut self, key: String, object: K) {
        self.kept.insert(key, Kept::Whole(Box::new(object)));
    }

    /// Forgets the object.
    pub fn remove(&mut self, key: &str) -> Option<K> {
        match self.kept.remove(key)? {
            Kept::Whole(object) => Some(*object),
            Kept::Packed(packed) => self.unpack(&packed),
        }
    }

    /// Packs the object, if it would come out as it is.
    pub fn pack(&mut self, key: &str) {
        let Some(Kept::Whole(object)) = self.kept.get(key) else { return };
        let Ok(json) = serde_json::to_vec(object) else { return };
        if self.dictionary.is_empty() {
            self.dictionary = json.clone().into();
        }
        let metadata = (self.metadata)(object);
        let (version, uid) = (version(metadata), uid(metadata).into());
        let compress = self.compress.get_or_insert_with(|| Compress::new(Compression::fast(), false));
        let Some(bytes) = deflate(compress, &self.dictionary, &json) else { return };
        let packed = Packed { version, uid, length: u32::try_from(json.len()).unwrap_or(0), bytes };
        let same = self.unpack(&packed).and_then(|unpacked| serde_json::to_vec(&unpacked).ok());
        let same = same.is_some_and(|unpacked| unpacked == json);
        if let (true, Entry::Occupied(mut entry)) = (same, self.kept.entry(key.into())) {
            entry.insert(Kept::Packed(packed));
        }
    }

    fn unpack(&self, packed: &Packed) -> Option<K> {
        let mut json = Vec::with_capacity(packed.length as usize);
        let mut inflate = Decompress::new(false);
        inflate.set_dictionary(&self.dictionary).ok()?;
        inflate.decompress_vec(&packed.bytes, &mut json, FlushDecompress::Finish).ok()?;
        serde_json::from_slice(&json).ok()
    }
}

fn deflate(compress: &mut Compress, dictionary: &[u8], json: &[u8]) -> Option<Box<[u8]>> {
    compress.reset();
    compress.set_dictionary(dictionary).ok()?;
    // What does not get smaller stays whole.
    let mut bytes = Vec::with_capacity(json.len());
    let status = compress.compress_vec(json, &mut bytes, FlushCompress::Finish).ok()?;
    (status == Status::StreamEnd).then(|| bytes.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use nixl_transfer_crds::TransferTask;
    use serde_json::json;

    use super::*;

    fn task(number: usize) -> TransferTask {
        serde_json::from_value(json!({
            "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferTask",
            "metadata": {
                "name": format!("task-{number}"), "namespace": "ns", "uid": format!("{number:032x}"),
                "resourceVersion": (100 + number).to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
                "finalizers": ["nixl-transfer.io/task"], "labels": {"nixl-transfer.io/job": "job"},
            },
            "spec": {
                "jobRef": {"name": "job", "uid": "job-uid"}, "run": 1, "attempt": 0, "failures": 0,
                "direction": "Write",
                "source": {"nodeName": "a", "instance": "a", "volume": {"name": "v", "path": "from"}},
                "target": {"nodeName": "b", "nodeUID": "b", "instance": "b", "destination": "t",
                           "volume": {"name": "v", "path": format!("to-{number}")}},
                "transport": {}, "integrity": {}, "writePolicy": "SkipIdentical",
                "deadlines": {"pendingSeconds": 600, "progressSeconds": 120},
            },
            "status": {
                "source": {"state": "Succeeded", "lastTransitionTime": "2026-01-01T00:00:01.868833591Z"},
                "target": {"state": "Succeeded", "bytesDone": 1024, "digest": format!("xxh3:{number:032x}"),
                           "lastTransitionTime": "2026-01-01T00:00:01.868833591Z"},
            },
        }))
        .unwrap()
    }

    /// As it comes back from the API server.
    fn written(task: TransferTask) -> TransferTask {
        serde_json::from_value(serde_json::to_value(task).unwrap()).unwrap()
    }

    #[test]
    fn what_is_packed_is_small_and_comes_out_as_it_went_in() {
        let mut store = Store::new(|task: &TransferTask| &task.metadata);
        for number in 0..20 {
            store.insert(number.to_string(), task(number));
            store.pack(&number.to_string());
        }
        for number in 0..20 {
            let key = number.to_string();
            let Some(Kept::Packed(packed)) = store.kept.get(&key) else { panic!("{number} is whole") };
            assert!(packed.bytes.len() < 200, "{} bytes", packed.bytes.len());
            assert_eq!(store.get(&key).as_deref(), Some(&written(task(number))));
            assert_eq!(
                (store.version(&key), store.uid(&key)),
                (Some(100 + number as u64), task(number).metadata.uid.as_deref())
            );
            assert!(store.whole(&key).is_none());
        }
        assert_eq!(store.remove("3"), Some(written(task(3))));
        assert_eq!((store.len(), store.contains("3"), store.get("3")), (19, false, None));
    }

    #[test]
    fn an_object_that_comes_anew_is_whole_and_can_be_packed_again() {
        let mut store = Store::new(|task: &TransferTask| &task.metadata);
        store.insert("a".into(), task(1));
        store.pack("a");
        store.insert("a".into(), task(2));
        assert_eq!(store.whole("a"), Some(&task(2)));
        store.pack("a");
        store.pack("a");
        store.pack("unknown");
        assert_eq!(store.get("a").as_deref(), Some(&written(task(2))));
        assert_eq!(
            store.identities().map(|(key, version, _)| (key, version)).collect::<Vec<_>>(),
            [("a", 102)]
        );
    }
}
