//! The calls of NVIDIA's driver that are used here: found once, all of them or none, so that no later call can miss its
//! symbol. cudarc's own functions are not called: they panic when the library or a symbol is missing, and take the driver's
//! answer for a Rust enum, which a newer driver's code would not be a value of. Its signatures are what ours are checked with.
#![allow(unsafe_code)] // dlopen and dlsym

use std::{
    ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_ulonglong, c_void},
    ptr,
    sync::OnceLock,
};

use cudarc::driver::sys;
use libloading::{Library, Symbol};

use crate::{driver::Absent, error::CudaError};

/// The name that every driver has, and that UCX asks for; the one without a version is of development packages.
pub const LIBRARY: &str = "libcuda.so.1";

macro_rules! calls {
    ($($name:ident($($of:ty),* $(,)?);)*) => {
        /// The functions by their names in libcuda. Each answers with an error's code, 0 for success.
        #[allow(non_snake_case)]
        pub(crate) struct Calls {
            $(pub(crate) $name: unsafe extern "C" fn($($of),*) -> c_uint,)*
            pub(crate) cuGetErrorName: unsafe extern "C" fn(c_uint, *mut *const c_char) -> c_uint,
        }

        // Ours take what NVIDIA's header says they take.
        $(const _: unsafe fn($($of),*) -> sys::CUresult = sys::$name;)*

        impl Calls {
            /// Finds them all.
            ///
            /// # Errors
            /// The name of one that is not there.
            #[allow(clippy::undocumented_unsafe_blocks)] // clippy does not see the comment in a macro
            fn find(library: &Library) -> Result<Self, &'static str> {
                // SAFETY: the types are those of NVIDIA's header, as the constants above have it, with the answer as the
                // number that it is. `cuGetErrorName` takes a code, which is a number of the same width.
                unsafe {
                    Ok(Self {
                        $($name: symbol(library, stringify!($name))?,)*
                        cuGetErrorName: symbol(library, "cuGetErrorName")?,
                    })
                }
            }
        }
    };
}

/// The function of this name.
///
/// # Safety
/// `F` is its type.
unsafe fn symbol<F: Copy>(library: &Library, name: &'static str) -> Result<F, &'static str> {
    // SAFETY: as this function demands.
    let found: Result<Symbol<'_, F>, _> = unsafe { library.get(name) };
    found.map(|symbol| *symbol).map_err(|_| name)
}

calls! {
    cuInit(c_uint);
    cuDeviceGetCount(*mut c_int);
    cuDeviceGet(*mut sys::CUdevice, c_int);
    cuDeviceGetName(*mut c_char, c_int, sys::CUdevice);
    cuDeviceGetUuid_v2(*mut sys::CUuuid, sys::CUdevice);
    cuDeviceGetPCIBusId(*mut c_char, c_int, sys::CUdevice);
    cuDeviceTotalMem_v2(*mut usize, sys::CUdevice);
    cuDeviceGetAttribute(*mut c_int, sys::CUdevice_attribute, sys::CUdevice);

    cuDevicePrimaryCtxRetain(*mut sys::CUcontext, sys::CUdevice);
    cuDevicePrimaryCtxRelease_v2(sys::CUdevice);
    cuCtxPushCurrent_v2(sys::CUcontext);
    cuCtxPopCurrent_v2(*mut sys::CUcontext);
    cuMemGetInfo_v2(*mut usize, *mut usize);

    cuMemGetAllocationGranularity(
        *mut usize, *const sys::CUmemAllocationProp, sys::CUmemAllocationGranularity_flags
    );
    cuMemCreate(
        *mut sys::CUmemGenericAllocationHandle, usize, *const sys::CUmemAllocationProp, c_ulonglong
    );
    cuMemRelease(sys::CUmemGenericAllocationHandle);
    cuMemExportToShareableHandle(
        *mut c_void, sys::CUmemGenericAllocationHandle, sys::CUmemAllocationHandleType, c_ulonglong
    );
    cuMemImportFromShareableHandle(
        *mut sys::CUmemGenericAllocationHandle, *mut c_void, sys::CUmemAllocationHandleType
    );
    cuMemAddressReserve(*mut sys::CUdeviceptr, usize, usize, sys::CUdeviceptr, c_ulonglong);
    cuMemAddressFree(sys::CUdeviceptr, usize);
    cuMemMap(sys::CUdeviceptr, usize, usize, sys::CUmemGenericAllocationHandle, c_ulonglong);
    cuMemUnmap(sys::CUdeviceptr, usize);
    cuMemSetAccess(sys::CUdeviceptr, usize, *const sys::CUmemAccessDesc, usize);
    cuMemGetAddressRange_v2(*mut sys::CUdeviceptr, *mut usize, sys::CUdeviceptr);
    cuPointerGetAttribute(*mut c_void, sys::CUpointer_attribute, sys::CUdeviceptr);

    cuMemAlloc_v2(*mut sys::CUdeviceptr, usize);
    cuMemFree_v2(sys::CUdeviceptr);
    cuIpcGetMemHandle(*mut sys::CUipcMemHandle, sys::CUdeviceptr);
    cuIpcOpenMemHandle_v2(*mut sys::CUdeviceptr, sys::CUipcMemHandle, c_uint);
    cuIpcCloseMemHandle(sys::CUdeviceptr);

    cuMemHostRegister_v2(*mut c_void, usize, c_uint);
    cuMemHostUnregister(*mut c_void);

    cuMemcpyHtoDAsync_v2(sys::CUdeviceptr, *const c_void, usize, sys::CUstream);
    cuMemcpyDtoHAsync_v2(*mut c_void, sys::CUdeviceptr, usize, sys::CUstream);
    cuMemsetD8Async(sys::CUdeviceptr, c_uchar, usize, sys::CUstream);
    cuStreamCreate(*mut sys::CUstream, c_uint);
    cuStreamDestroy_v2(sys::CUstream);
    cuEventCreate(*mut sys::CUevent, c_uint);
    cuEventRecord(sys::CUevent, sys::CUstream);
    cuEventQuery(sys::CUevent);
    cuEventDestroy_v2(sys::CUevent);
}

impl Calls {
    /// The calls of this process's driver: of the library that was the first to be found. A failure is not kept: a driver may
    /// be installed later.
    ///
    /// # Errors
    /// [`Absent`].
    pub(crate) fn of_process(library: &str) -> Result<&'static Self, Absent> {
        static FOUND: OnceLock<Calls> = OnceLock::new();
        if let Some(calls) = FOUND.get() {
            return Ok(calls);
        }
        let calls = Self::open(library)?;
        Ok(FOUND.get_or_init(|| calls))
    }

    /// Opens the library at a path or of a name.
    ///
    /// # Errors
    /// [`Absent::NoLibrary`] and [`Absent::TooOld`].
    pub(crate) fn open(name: &str) -> Result<Self, Absent> {
        // SAFETY: the initialisers that run are those of NVIDIA's driver, trusted as NIXL is, which loads it too.
        let library = unsafe { Library::new(name) }.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            Absent::NoLibrary(cause.unwrap_or_else(|| error.to_string()))
        })?;
        let calls = Self::find(&library).map_err(Absent::TooOld);
        // Loaded for the rest of the process: its functions are kept, and it is not made to be unloaded.
        std::mem::forget(library);
        calls
    }

    /// An answer as a result.
    ///
    /// # Errors
    /// The error, with the name that the driver has for it.
    pub(crate) fn check(&self, call: &'static str, code: c_uint) -> Result<(), CudaError> {
        if code == 0 { Ok(()) } else { Err(CudaError::new(call, code, self.name(code))) }
    }

    fn name(&self, code: c_uint) -> String {
        let mut name = ptr::null();
        // SAFETY: any number may be asked for; a text of the driver's own, or null, is written to `name`.
        let answer = unsafe { (self.cuGetErrorName)(code, &raw mut name) };
        if answer != 0 || name.is_null() {
            return "an error that this driver has no name for".to_owned();
        }
        // SAFETY: not null, and the driver's names end with NUL and are never freed.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }
}

/// Makes a call of the driver: `call!(driver, cuMemRelease(handle))` is a `Result<(), CudaError>`, and unsafe.
macro_rules! call {
    ($driver:expr, $name:ident($($argument:expr),* $(,)?)) => {{
        let calls: &'static $crate::calls::Calls = $driver.calls();
        calls.check(stringify!($name), (calls.$name)($($argument),*))
    }};
}
pub(crate) use call;
