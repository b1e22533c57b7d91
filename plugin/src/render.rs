//! From objects to text. Pure: an object, a width, colours or none, and the time it is. What stands in the golden files of
//! `tests/golden` is made here.

pub mod describe;
pub mod doctor;
pub mod jobs;
mod style;
mod table;
pub mod watch;
mod words;

pub use style::{Style, clean};
pub use words::{span, span_of};
