//! What the types forbid, as programs that must not compile; each stands beside the nearest one that does.
//!
//! Memory that an operation has cannot be used:
//! ```compile_fail,E0382
//! # use nixl_connect::*;
//! fn begin(connector: &Connector, remote: RdmaMetadata, descriptor: Descriptor) {
//!     let _reading = connector.begin_read(remote, descriptor);
//!     descriptor.bytes();
//! }
//! ```
//! Shared memory can be read meanwhile:
//! ```
//! # use nixl_connect::*;
//! # use std::sync::Arc;
//! fn begin(connector: &Connector, descriptor: Arc<Descriptor>) -> usize {
//!     let _readable = connector.create_readable(Arc::clone(&descriptor));
//!     descriptor.bytes().map_or(0, |bytes| bytes.len())
//! }
//! ```
//! but not written:
//! ```compile_fail,E0596
//! # use nixl_connect::*;
//! # use std::sync::Arc;
//! fn begin(connector: &Connector, descriptor: Arc<Descriptor>) {
//!     let _readable = connector.create_readable(Arc::clone(&descriptor));
//!     descriptor.bytes_mut();
//! }
//! ```
//! and what a peer shall write cannot be shared at all:
//! ```compile_fail,E0277
//! # use nixl_connect::*;
//! # use std::sync::Arc;
//! fn begin(connector: &Connector, descriptor: Arc<Descriptor>) {
//!     let _writable = connector.create_writable(descriptor);
//! }
//! ```
//! Results do not outlive their operation:
//! ```compile_fail,E0505
//! # use nixl_connect::*;
//! fn end(operation: ReadOperation) -> Result<(), OperationError> {
//!     let results = operation.results()?;
//!     drop(operation);
//!     results[0].bytes();
//!     Ok(())
//! }
//! ```
//! They can be written only when they have left it:
//! ```compile_fail,E0596
//! # use nixl_connect::*;
//! fn end(operation: ReadOperation) -> Result<(), OperationError> {
//!     operation.results()?[0].bytes_mut();
//!     Ok(())
//! }
//! ```
//! ```
//! # use nixl_connect::*;
//! fn end(operation: ReadOperation) -> Option<Vec<Descriptor>> {
//!     let mut descriptors = operation.into_descriptors().ok()?;
//!     descriptors[0].bytes_mut()?.fill(0);
//!     Some(descriptors)
//! }
//! ```
//! A wait does not outlive its operation:
//! ```compile_fail,E0505
//! # use nixl_connect::*;
//! fn wait(operation: WriteOperation, deadline: std::time::Instant) {
//!     let completion = operation.wait_for_completion(deadline);
//!     drop(operation);
//!     let _ = completion.blocking();
//! }
//! ```
//! Borrowed memory becomes a descriptor only by a promise:
//! ```compile_fail,E0133
//! # use nixl_connect::*;
//! fn borrow(bytes: &mut [u8]) {
//!     let _ = Descriptor::from_raw_parts(Device::Cpu, bytes.as_mut_ptr(), bytes.len(), ());
//! }
//! ```
//! An operation keeps what it needs of its connector, so this order is right too:
//! ```
//! # use nixl_connect::*;
//! fn keep(connector: Connector, descriptor: Descriptor) -> Option<WritableOperation> {
//!     let operation = connector.create_writable(descriptor).blocking().ok();
//!     drop(connector);
//!     operation
//! }
//! ```
