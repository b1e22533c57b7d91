# SPDX-License-Identifier: Apache-2.0
"""A pod that lends memory of its first GPU: allocates and fills it, hands it over, and prints what becomes of it.

    python3 example_gpu.py SOCKET TOKEN_FILE REGION SIZE [TEXT]

Ends after the first transfer has finished. Needs nothing but NVIDIA's driver, libcuda.so.1 or what LIBCUDA names. Prints one
line of JSON per event, then the first bytes of the memory.
"""

import ctypes
import json
import os
import sys
import uuid

from nixl_transfer import Workload

CUDA = ctypes.CDLL(os.environ.get("LIBCUDA", "libcuda.so.1"))


class Handle(ctypes.Structure):
    """CUipcMemHandle."""

    _fields_ = [("reserved", ctypes.c_ubyte * 64)]


def call(name, *arguments):
    """A call of the driver."""
    error = getattr(CUDA, name)(*arguments)
    if error:
        raise OSError(f"{name} gives {error}")


def first_gpu():
    """Makes the context of the first GPU current; gives its UUID as nvidia-smi shows it."""
    device, context, raw = ctypes.c_int(), ctypes.c_void_p(), (ctypes.c_ubyte * 16)()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDeviceGetUuid_v2", ctypes.byref(raw), device)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxPushCurrent_v2", context)
    return f"GPU-{uuid.UUID(bytes=bytes(raw))}"


def main(path, token_file, region, size, text=""):
    size, gpu = int(size), first_gpu()
    memory, handle = ctypes.c_uint64(), Handle()
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(size))
    call("cuMemcpyHtoD_v2", memory, text.encode(), ctypes.c_size_t(len(text.encode())))
    call("cuIpcGetMemHandle", ctypes.byref(handle), memory)
    with open(token_file, encoding="utf-8") as file:
        token = file.read()
    with Workload(path, token) as agent:
        agent.hand_over_gpu(region, gpu, size, handle=bytes(handle.reserved))
        print(json.dumps({"type": "ready", "pod": agent.welcome["pod"]}), flush=True)
        print(json.dumps(agent.next(timeout=600)), flush=True)
        agent.withdraw(region)
    start = ctypes.create_string_buffer(32)
    call("cuMemcpyDtoH_v2", start, memory, ctypes.c_size_t(min(size, 32)))
    print(start.raw[: min(size, 32)], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
