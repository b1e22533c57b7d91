//! docs/plugin.md shows what the golden files have.
