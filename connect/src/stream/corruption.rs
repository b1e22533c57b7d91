//! Fault injection for tests, behind the feature `fault-injection`: damages one chunk between its digest and its write,
//! so that "found and sent again" can be shown. Pure.

#[derive(Debug, Default)]
pub(super) struct Corruption {
    sequence: u64,
    times: u32,
    damaged: bool,
}

impl Corruption {
    pub(super) fn plan(&mut self, sequence: u64, times: u32) {
        *self = Self { sequence, times, damaged: false };
    }

    /// Called before each write of a chunk. Damage is undone once it has been written often enough.
    pub(super) fn before_write(&mut self, sequence: u64, bytes: &mut [u8]) {
        if sequence != self.sequence || (self.times == 0 && !self.damaged) {
            return;
        }
        let damage = self.times > 0;
        if damage != self.damaged
            && let Some(first) = bytes.first_mut()
        {
            *first ^= 1;
            self.damaged = damage;
        }
        self.times = self.times.saturating_sub(1);
    }
}
