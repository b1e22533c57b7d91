//! Control's connection to the launcher.
