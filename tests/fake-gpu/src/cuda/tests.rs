//! The calls in their order, as a consumer makes them. The tests share one process, and so one state, as threads of a real
//! consumer do.

use std::{
    ffi::{c_int, c_void},
    io::{BufRead, BufReader, Write},
    mem::zeroed,
    os::fd::AsRawFd,
    process::{Command, Stdio},
    ptr::{null_mut, without_provenance_mut},
};

use cudarc::driver::sys::{
    CUipcMemHandle, CUmemAccess_flags_enum as Flags, CUmemAccessDesc, CUmemAllocationProp,
    CUpointer_attribute_enum,
};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{contexts::*, copies::*, devices::*, ipc::*, mappings::*, memory::*, *};

const SIZE: usize = GRANULARITY;

/// Makes the context of a device current in this thread.
fn enter(device: c_int) {
    let mut context = null_mut();
    unsafe {
        assert_eq!(cuInit(0), 0);
        assert_eq!(cuDevicePrimaryCtxRetain(&raw mut context, device), 0);
        assert_eq!(cuCtxPushCurrent_v2(context), 0);
    }
}

fn create(device: c_int, size: usize) -> Result<u64, c_uint> {
    let mut wanted: CUmemAllocationProp = unsafe { zeroed() };
    wanted.location.id = device;
    let mut handle = 0;
    let code = unsafe { cuMemCreate(&raw mut handle, size, &raw const wanted, 0) };
    if code == 0 { Ok(handle) } else { Err(code) }
}

/// Reserved, mapped, and of this access.
fn placed(handle: u64, size: usize, flags: Flags) -> Result<u64, c_uint> {
    let mut access: CUmemAccessDesc = unsafe { zeroed() };
    access.flags = flags;
    let mut start = 0;
    unsafe {
        assert_eq!(cuMemAddressReserve(&raw mut start, size, 0, 0, 0), 0);
        match cuMemMap(start, size, 0, handle, 0) {
            0 => assert_eq!(cuMemSetAccess(start, size, &raw const access, 1), 0),
            code => {
                assert_eq!(cuMemAddressFree(start, size), 0);
                return Err(code);
            }
        }
    }
    Ok(start)
}

fn read(from: u64, bytes: usize) -> Result<Vec<u8>, c_uint> {
    let mut to = vec![0; bytes];
    match unsafe { cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, bytes, null_mut()) } {
        0 => Ok(to),
        code => Err(code),
    }
}

fn write(to: u64, bytes: &[u8]) -> c_uint {
    unsafe { cuMemcpyHtoDAsync_v2(to, bytes.as_ptr().cast(), bytes.len(), null_mut()) }
}

fn ordinal(address: u64) -> c_int {
    let mut device: c_int = -1;
    let attribute = CUpointer_attribute_enum::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL as c_uint;
    let to = (&raw mut device).cast();
    unsafe {
        assert_eq!(cuPointerGetAttribute(to, attribute, address), 0);
        assert_eq!(cuPointerGetAttribute(to, attribute + 1, address), INVALID_VALUE);
    }
    device
}

#[test]
fn devices_are_those_of_nvml_in_reverse() {
    unsafe {
        assert_eq!(cuInit(0), 0);
        let (mut count, mut device, mut bytes, mut buffer) = (0, 7, 0, [0; 16]);
        assert_eq!((cuDeviceGetCount(&raw mut count), count), (0, 2));
        assert_eq!(cuDeviceGet(&raw mut device, 2), INVALID_DEVICE);
        assert_eq!((cuDeviceGet(&raw mut device, 0), device), (0, 0));
        assert_eq!(cuDeviceGetPCIBusId(buffer.as_mut_ptr(), 13, 0), 0);
        assert_eq!(CStr::from_ptr(buffer.as_ptr()), c"0000:1C:00.0");
        assert_eq!(cuDeviceGetPCIBusId(buffer.as_mut_ptr(), 12, 0), INVALID_VALUE);
        assert_eq!((cuDeviceTotalMem_v2(&raw mut bytes, 1), bytes), (0, 16 << 20));
        let mut can = 7;
        assert_eq!((cuDeviceGetAttribute(&raw mut can, 103, 0), can), (0, 1));
        assert_eq!((cuDeviceGetAttribute(&raw mut can, 110, 0), can), (0, 0));
    }
}

#[test]
fn without_a_context_nothing_can_be_made() {
    unsafe {
        assert_eq!(cuInit(0), 0);
        let (mut free, mut total, mut stream, mut start, mut popped) = (0, 0, null_mut(), 0, null_mut());
        assert_eq!(cuMemGetInfo_v2(&raw mut free, &raw mut total), INVALID_CONTEXT);
        assert_eq!(cuStreamCreate(&raw mut stream, 0), INVALID_CONTEXT);
        assert_eq!(cuMemAlloc_v2(&raw mut start, 1), INVALID_CONTEXT);
        assert_eq!(create(0, SIZE), Err(INVALID_CONTEXT));
        assert_eq!(cuCtxPopCurrent_v2(&raw mut popped), INVALID_CONTEXT);
        assert_eq!(cuCtxPushCurrent_v2(without_provenance_mut(99)), INVALID_CONTEXT);
        enter(0);
        assert_eq!((cuMemGetInfo_v2(&raw mut free, &raw mut total), free, total), (0, 8 << 20, 8 << 20));
        assert_eq!(cuCtxPopCurrent_v2(&raw mut popped), 0);
        assert_eq!(cuMemGetInfo_v2(&raw mut free, &raw mut total), INVALID_CONTEXT);
        let mut name = std::ptr::null();
        assert_eq!(cuGetErrorName(INVALID_CONTEXT, &raw mut name), 0);
        assert_eq!(CStr::from_ptr(name), c"CUDA_ERROR_INVALID_CONTEXT");
        assert_eq!(cuGetErrorName(12345, &raw mut name), INVALID_VALUE);
    }
}

#[test]
fn memory_is_shared_by_its_descriptor_and_kept_by_each_mapping() {
    enter(0);
    assert_eq!(create(0, SIZE + 4096), Err(INVALID_VALUE));
    assert_eq!(create(0, 10 << 20), Err(OUT_OF_MEMORY));
    assert_eq!(create(2, SIZE), Err(INVALID_DEVICE));
    let handle = create(1, SIZE).unwrap();
    let (mut number, mut imported) = (-1, 0);
    unsafe {
        let to = (&raw mut number).cast::<c_void>();
        assert_eq!(cuMemExportToShareableHandle(to, handle, 1, 0), 0);
        let number = without_provenance_mut(number as usize);
        assert_eq!(cuMemImportFromShareableHandle(&raw mut imported, number, 1), 0);
        libc::close(number.addr() as c_int);
        let none = without_provenance_mut(1 << 30);
        assert_eq!(cuMemImportFromShareableHandle(&raw mut imported, none, 1), INVALID_VALUE);
        let other = memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
        let other = without_provenance_mut(other.as_raw_fd() as usize);
        assert_eq!(cuMemImportFromShareableHandle(&raw mut imported, other, 1), INVALID_VALUE);
    }
    let one = placed(handle, SIZE, Flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE).unwrap();
    let two = placed(imported, SIZE, Flags::CU_MEM_ACCESS_FLAGS_PROT_READ).unwrap();
    assert_eq!(placed(handle, 2 * SIZE, Flags::CU_MEM_ACCESS_FLAGS_PROT_READ), Err(INVALID_VALUE));
    assert_eq!((ordinal(one), ordinal(two + 5)), (1, 1));
    unsafe {
        assert_eq!((cuMemRelease(handle), cuMemRelease(imported)), (0, 0));
        assert_eq!(cuMemRelease(handle), INVALID_VALUE);
        assert_eq!(cuMemsetD8Async(one + 1, 0, SIZE - 1, null_mut()), 0);
        assert_eq!(write(one + 7, b"weights"), 0);
        assert_eq!(read(two, 16).unwrap(), b"\xaa\0\0\0\0\0\0weights\0\0");

        assert_eq!(write(two, b"no"), ILLEGAL_ADDRESS);
        assert_eq!(cuMemsetD8Async(two, 0, 1, null_mut()), ILLEGAL_ADDRESS);
        assert_eq!(write(one + SIZE as u64 - 1, b"no"), INVALID_VALUE);
        assert_eq!(read(one + SIZE as u64, 1), Err(INVALID_VALUE));
        let (mut start, mut size) = (0, 0);
        assert_eq!(cuMemGetAddressRange_v2(&raw mut start, &raw mut size, two + 99), 0);
        assert_eq!((start, size), (two, SIZE));

        assert_eq!(cuMemAddressFree(two, SIZE), INVALID_VALUE, "still mapped");
        assert_eq!(cuMemUnmap(two, SIZE / 2), INVALID_VALUE);
        assert_eq!((cuMemUnmap(one, SIZE), cuMemUnmap(two, SIZE)), (0, 0));
        assert_eq!(read(two, 1), Err(INVALID_VALUE));
        assert_eq!((cuMemAddressFree(one, SIZE), cuMemAddressFree(two, SIZE)), (0, 0));
        assert_eq!(cuMemAddressFree(two, SIZE), INVALID_VALUE);
    }
}

#[test]
fn an_event_is_late_once_each_time_it_is_recorded() {
    enter(1);
    let (mut stream, mut event) = (null_mut(), null_mut());
    unsafe {
        assert_eq!((cuStreamCreate(&raw mut stream, 1), cuEventCreate(&raw mut event, 2)), (0, 0));
        assert_eq!(cuEventQuery(event), 0, "never recorded");
        for _ in 0..2 {
            assert_eq!(cuEventRecord(event, stream), 0);
            assert_eq!((cuEventQuery(event), cuEventQuery(event)), (NOT_READY, 0));
        }
        assert_eq!((cuEventDestroy_v2(event), cuEventDestroy_v2(event)), (0, INVALID_HANDLE));
        assert_eq!((cuStreamDestroy_v2(stream), cuStreamDestroy_v2(stream)), (0, INVALID_HANDLE));
    }
}

#[test]
fn host_memory_is_registered_once() {
    enter(1);
    let at = |address: usize| without_provenance_mut::<c_void>(address);
    unsafe {
        assert_eq!(cuMemHostRegister_v2(at(4096), 8192, 0), 0);
        for (start, bytes) in [(4096, 8192), (0, 4097), (12287, 1), (5000, 1)] {
            assert_eq!(cuMemHostRegister_v2(at(start), bytes, 0), ALREADY_REGISTERED);
        }
        assert_eq!(
            (cuMemHostRegister_v2(at(12288), 1, 0), cuMemHostRegister_v2(at(99), 0, 0)),
            (0, INVALID_VALUE)
        );
        assert_eq!((cuMemHostUnregister(at(4096)), cuMemHostUnregister(at(12288))), (0, 0));
        assert_eq!(cuMemHostUnregister(at(4096)), NOT_REGISTERED);
    }
}

const ROLE: &str = "NIXL_TRANSFER_FAKE_GPU_HOLDER";

/// The holder of the next test: says its handle and ends with its standard input. Nothing when it is run by itself.
#[test]
fn another_process() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    enter(1);
    let (mut start, mut handle) = (0, CUipcMemHandle { reserved: [0; 64] });
    unsafe {
        assert_eq!(cuMemAlloc_v2(&raw mut start, 5000), 0);
        assert_eq!(cuIpcGetMemHandle(&raw mut handle, start + 17), 0);
        assert_eq!(cuIpcOpenMemHandle_v2(&raw mut start, handle, 1), INVALID_CONTEXT, "its own");
    }
    let digits: String = handle.reserved.iter().map(|byte| format!("{:02x}", *byte as u8)).collect();
    println!("\nhandle {digits}");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn a_handle_opens_memory_of_a_process_that_lives() {
    enter(0);
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["cuda::tests::another_process", "--exact", "--nocapture"])
        .env(ROLE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines().map(Result::unwrap);
    let digits = lines.into_iter().find_map(|line| line.strip_prefix("handle ").map(str::to_owned)).unwrap();
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap();
    let handle = CUipcMemHandle { reserved: std::array::from_fn(|at| byte(at) as std::ffi::c_char) };
    let open = |handle| {
        let mut start = 0;
        match unsafe { cuIpcOpenMemHandle_v2(&raw mut start, handle, 1) } {
            0 => Ok(start),
            code => Err(code),
        }
    };
    let start = open(handle).unwrap();
    assert_eq!(open(handle), Ok(start), "counted");
    assert_eq!(ordinal(start), 1);
    let (mut first, mut size) = (0, 0);
    unsafe {
        assert_eq!(cuMemGetAddressRange_v2(&raw mut first, &raw mut size, start), 0);
        assert_eq!((first, size), (start, 5000));
        let mut again = handle;
        assert_eq!(cuIpcGetMemHandle(&raw mut again, start), INVALID_VALUE, "not its own");
    }
    assert_eq!(read(start, 5000).unwrap(), [LEFT; 5000]);
    assert_eq!(write(start, b"seen"), 0);
    for at in [0, 24] {
        let mut wrong = handle;
        wrong.reserved[at] ^= 1;
        assert_eq!(open(wrong), Err(INVALID_HANDLE), "byte {at}");
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(open(handle), Err(INVALID_HANDLE));
    assert_eq!(read(start, 5).unwrap(), b"seen\xaa", "stale, and still there");
    unsafe {
        assert_eq!(cuMemFree_v2(start), INVALID_VALUE);
        assert_eq!((cuIpcCloseMemHandle(start), read(start, 1).is_ok()), (0, true));
        assert_eq!((cuIpcCloseMemHandle(start), read(start, 1).is_ok()), (0, false));
        assert_eq!(cuIpcCloseMemHandle(start), INVALID_VALUE);
    }
}
