//! The TransferNode of this node.
