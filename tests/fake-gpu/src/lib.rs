//! A fake of NVIDIA's libcuda and of NVML in one library, for tests of several processes on a machine without a GPU. "GPU
//! memory" is a memfd, so it passes between processes as the real one does. It knows what was measured of the real libraries
//! (`docs/measured/gpu.md`) and what `nixl-transfer-gpu` and `nvml-wrapper` call, no more. **It proves nothing about a real
//! GPU**: that one takes the calls is shown by `gpu/tests/gpu`.
//!
//! The GPUs are the lines of the file `gpus` beside the library, each an address and bytes of memory, in NVML's order:
//!
//! ```text
//! 0000:0f:00.0 268435456
//! 0000:1c:00.0 268435456
//! ```
//!
//! "Beside" is where the library was opened: a test makes a directory with that file and links to the library, say
//! `libcuda.so.1` and `libnvidia-ml.so.1`. One process sees one list, that of the path that it has opened first.
//!
//! Beside it a test may put files named `damage` (what is copied to a GPU has a wrong bit) and `hang` (no copy ends), for as
//! long as that shall be so.
//!
//! It is stricter than a real driver where a mistake would stay hidden: CUDA's indices are NVML's in reverse, all memory is
//! full of 0xAA, each event is late once, and nearly every call wants a current context. It is kinder where a real one would
//! lose the context or the process: it gives the error, and goes on. Copies are done when they are begun, memory that others
//! hold does not lessen what is free, and giving back a context frees nothing.
#![allow(unsafe_code)] // functions of C with raw pointers, which are the callers' to keep right, and mappings

mod cuda;
mod gpus;
mod nvml;
