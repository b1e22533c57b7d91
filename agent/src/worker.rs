//! The worker process: NIXL, staging memory, nothing worth stealing.
