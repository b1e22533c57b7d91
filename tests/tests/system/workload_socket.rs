//! The socket of workloads under attack: each wrong thing is refused with its reason, and a pod that does right beside it
//! is served before, during and after. Nothing stays open in the agent.

mod document;
mod floods;
mod memory;
mod scene;
mod tokens;
