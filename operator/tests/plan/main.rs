//! Tests of the pure plan: tables of single decisions, and a model of the world in which any sequence of events must
//! end well. No API server, no clock, no I/O.

mod any_sequence;
mod chains;
mod clocks;
mod discard;
mod expiry;
mod following;
mod model;
mod network;
mod regions;
mod tables;
