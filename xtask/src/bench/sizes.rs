//! How much is moved: what the goals are set for, or less for a quick look. Pure.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the one large thing.
    pub large: u64,
    /// How many small files.
    pub files: u64,
}

impl Sizes {
    pub const FULL: Self = Self { large: 1 << 30, files: 10_000 };
    /// Says whether everything works; its figures say little.
    pub const QUICK: Self = Self { large: 64 << 20, files: 500 };
}
