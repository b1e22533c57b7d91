//! The node's Lease, and the fence that rests on its renewal.
