//! A driver without a GPU, for the tests of what is made of its calls: order, release, copies in flight, failures. Its copies
//! happen as late as they may, when their event is asked about for the second time. It knows what the project has measured or
//! NVIDIA documents, no more: that a real driver takes the calls is shown by `tests/gpu`.
#![allow(unsafe_code)] // copies between raw addresses

mod functions;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::c_uint,
    rc::Rc,
    sync::Arc,
};

use crate::{Context, Driver};

pub const GRANULARITY: usize = 2 << 20;
const INVALID_VALUE: c_uint = 1;
/// What an injected failure gives: out of memory.
pub const INJECTED: c_uint = 2;

type Bytes = Rc<RefCell<Vec<u8>>>;

/// Something that the GPU has yet to do.
enum Work {
    ToDevice(u64, *const u8, usize),
    ToHost(*mut u8, u64, usize),
    Zero(u64, usize),
}

/// The driver of one test, which is one thread.
#[derive(Default)]
pub struct State {
    last: u64,
    contexts: usize,
    current: usize,
    handles: BTreeMap<u64, Bytes>,
    exported: BTreeMap<u64, Bytes>,
    reserved: BTreeMap<u64, usize>,
    mapped: BTreeMap<u64, Bytes>,
    streams: BTreeSet<u64>,
    events: BTreeMap<u64, (u64, bool)>,
    pinned: BTreeSet<usize>,
    work: VecDeque<(u64, Work)>,
    begun: u64,
    calls: usize,
    /// Most copies that were in flight.
    pub most_in_flight: usize,
    /// Events are never reached.
    pub is_stuck: bool,
    /// What a question about an event gives.
    pub broken: c_uint,
    /// The call that fails, counted from 0, and its name once it has.
    pub fails: Option<usize>,
    pub failed: Option<&'static str>,
    /// Memory of another process: its handle's first byte.
    pub shared: BTreeMap<u8, Bytes>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

pub fn with<R>(act: impl FnOnce(&mut State) -> R) -> R {
    STATE.with_borrow_mut(act)
}

/// What the driver has not got back, by kind; empty when nothing leaks.
pub fn leaks() -> Vec<String> {
    with(|state| {
        let counts = [
            ("contexts", state.contexts),
            ("current", state.current),
            ("handles", state.handles.len()),
            ("reservations", state.reserved.len()),
            ("mappings", state.mapped.len()),
            ("streams", state.streams.len()),
            ("events", state.events.len()),
            ("pinned", state.pinned.len()),
        ];
        let leaks = counts.into_iter().filter(|(_, count)| *count > 0);
        leaks.map(|(what, count)| format!("{count} {what}")).collect()
    })
}

/// A context of the GPU that there is not, in a driver that has forgotten all before.
pub fn context() -> Arc<Context> {
    with(|state| *state = State::default());
    let device = Driver::of(Box::leak(Box::new(functions::calls()))).devices().unwrap().swap_remove(0);
    Context::retain(&device).unwrap()
}

impl State {
    fn id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Calls so far that could fail.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Counts a call that may fail.
    fn may_fail(&mut self, name: &'static str) -> Result<(), c_uint> {
        self.calls += 1;
        if self.fails == Some(self.calls - 1) {
            self.failed = Some(name);
            return Err(INJECTED);
        }
        Ok(())
    }

    /// The memory that an address lies in, the offset in it, and its start; all of the bytes must lie in it.
    fn find(&self, pointer: u64, bytes: usize) -> Result<(Bytes, usize, u64), c_uint> {
        let (start, memory) = self.mapped.range(..=pointer).next_back().ok_or(INVALID_VALUE)?;
        let offset = (pointer - start) as usize;
        if offset + bytes > memory.borrow().len() || self.current == 0 {
            return Err(INVALID_VALUE);
        }
        Ok((Rc::clone(memory), offset, *start))
    }

    fn begin(&mut self, pointer: u64, bytes: usize, work: Work) -> Result<(), c_uint> {
        self.find(pointer, bytes)?;
        self.begun += 1;
        self.work.push_back((self.begun, work));
        self.most_in_flight = self.most_in_flight.max(self.work.len());
        Ok(())
    }

    /// Does what was begun up to a mark.
    fn work(&mut self, until: u64) -> Result<(), c_uint> {
        while self.work.front().is_some_and(|(number, _)| *number <= until) {
            let Some((_, work)) = self.work.pop_front() else { break };
            let (pointer, count) = match work {
                Work::ToDevice(to, _, count) | Work::Zero(to, count) => (to, count),
                Work::ToHost(_, from, count) => (from, count),
            };
            let (memory, at, _) = self.find(pointer, count)?;
            let mut memory = memory.borrow_mut();
            let part = &mut memory[at..at + count];
            match work {
                Work::Zero(..) => part.fill(0),
                // SAFETY: what begins a copy promises that the host's bytes stay.
                Work::ToDevice(_, from, _) => unsafe {
                    from.copy_to_nonoverlapping(part.as_mut_ptr(), count)
                },
                // SAFETY: as above.
                Work::ToHost(to, ..) => unsafe { part.as_ptr().copy_to_nonoverlapping(to, count) },
            }
        }
        Ok(())
    }
}

fn answer(act: impl FnOnce(&mut State) -> Result<(), c_uint>) -> c_uint {
    with(act).err().unwrap_or(0)
}
