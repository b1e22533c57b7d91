//! The agent's metrics, in a registry of their own.
