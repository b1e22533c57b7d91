//! How much is moved: what the goals are set for, or less for a quick look. Pure.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the one large thing.
    pub large: u64,
    /// Bytes of what goes to many nodes at once.
    pub fan: u64,
    /// How many small files.
    pub files: u64,
    /// Jobs of each round of the latency suite.
    pub jobs: usize,
    /// Jobs of one burst.
    pub burst: usize,
    /// Jobs that the operator holds when its memory is looked at.
    pub kept: usize,
    /// Fake agents whose watches are counted.
    pub agents: usize,
}

impl Sizes {
    pub const FULL: Self = Self {
        large: 1 << 30,
        fan: 512 << 20,
        files: 10_000,
        jobs: 20,
        burst: 2_000,
        kept: 10_000,
        agents: 1_000,
    };
    /// Says whether everything works; its figures say little.
    pub const QUICK: Self =
        Self { large: 64 << 20, fan: 64 << 20, files: 500, jobs: 3, burst: 100, kept: 500, agents: 100 };
}
