# SPDX-License-Identifier: Apache-2.0
"""Hands memory of a pod over to the transfer agent of its node, and hears of transfers. Python 3.9, no dependencies.

    memory = shared_memory(64 << 20)
    with Workload("/run/nixl-transfer/workload.sock", token) as agent:
        agent.hand_over("kv-buffer", memory)
        print(agent.next(timeout=600))    # {"type": "finished", "region": "kv-buffer", "job": …, "succeeded": True, …}

The protocol is in docs/workload-memory.md. Every wait has a timeout, in seconds.
"""

import fcntl
import json
import mmap
import os
import socket
import time

VERSION = 1
AUDIENCE = "nixl-transfer.io"


class Refused(Exception):
    """The agent said no. `reason` is one word, `message` says what to do."""

    def __init__(self, reason, message):
        super().__init__(f"{reason}: {message}")
        self.reason, self.message = reason, message


class SharedMemory(mmap.mmap):
    """Memory that can be handed over: `fd` is its memfd. Use it as any mmap."""

    fd = -1

    def close(self):
        super().close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def shared_memory(size):
    """Memory of so many bytes: allocated whole, zeroed, of that length for good."""
    fd = os.memfd_create("nixl-transfer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.posix_fallocate(fd, 0, size)
    f_add_seals, seal_seal, seal_shrink, seal_grow = 1033, 1, 2, 4
    fcntl.fcntl(fd, f_add_seals, seal_seal | seal_shrink | seal_grow)
    memory = SharedMemory(fd, size)
    memory.fd = fd
    return memory


class Workload:
    """A connection to the agent. When it is closed the agent lets go of all memory.

    After any exception but Refused, and but TimeoutError from next(), it is of no more use: an answer may be under way.
    """

    def __init__(self, path, token, timeout=10):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._bytes, self._events = b"", []
        deadline = time.monotonic() + timeout
        try:
            self._connect(path, deadline)
            self._say({"type": "hello", "version": VERSION, "token": token.strip()}, deadline)
            #: What the agent knows of this pod: `node`, `namespace`, `pod`.
            self.welcome = self._answer(deadline)
        except BaseException:
            self._socket.close()
            raise

    def hand_over(self, region, memory, timeout=60):
        """Hands memory over as the MemoryRegion of that name; waits for the object if it is not there yet."""
        return self._offer({"region": region, "size": len(memory), "device": "cpu"}, memory.fd, timeout)

    def hand_over_gpu(self, region, gpu, size, fd=None, handle=None, allocation=None, offset=0, timeout=60):
        """The same with `size` bytes of the GPU with this UUID: an fd of cuMemExportToShareableHandle, or a handle of
        cudaIpcGetMemHandle (64 bytes) for the allocation of so many bytes, in which the memory begins at offset."""
        offer = {"region": region, "size": size, "device": gpu}
        if handle is not None:
            offer["ipc"] = {"handle": handle.hex(), "allocation": allocation or size, "offset": offset}
        return self._offer(offer, fd, timeout)

    def _offer(self, offer, fd, timeout):
        deadline = time.monotonic() + timeout
        while True:
            self._say({"type": "offer", **offer}, deadline, fd)
            try:
                return self._answer(deadline)
            except Refused as refusal:
                if refusal.reason != "RegionNotFound" or time.monotonic() + 0.5 > deadline:
                    raise
            time.sleep(0.5)  # nothing tells a client of a new object

    def withdraw(self, region, timeout=60):
        """Takes memory back; then no transfer can reach it."""
        deadline = time.monotonic() + timeout
        self._say({"type": "withdraw", "region": region}, deadline)
        return self._answer(deadline)

    def next(self, timeout):
        """The next event: a dictionary with the type `finished` or `ended`. TimeoutError when there is none in time."""
        return self._events.pop(0) if self._events else self._receive(time.monotonic() + timeout)

    def close(self):
        """Takes all memory back."""
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _connect(self, path, deadline):
        while True:
            self._wait(deadline)
            try:
                return self._socket.connect(path)
            except BlockingIOError:  # the agent's queue is full
                time.sleep(0.05)

    def _answer(self, deadline):
        while True:
            message = self._receive(deadline)
            if message["type"] == "refused":
                raise Refused(message["reason"], message["message"])
            if message["type"] not in ("finished", "ended"):
                return message
            self._events.append(message)

    def _receive(self, deadline):
        while True:
            length = int.from_bytes(self._bytes[:4], "big")
            if len(self._bytes) >= 4 + length and len(self._bytes) >= 4:
                body, self._bytes = self._bytes[4 : 4 + length], self._bytes[4 + length :]
                return json.loads(body)
            self._wait(deadline)
            piece = self._socket.recv(65536)
            if not piece:
                raise ConnectionError("the agent has closed the connection")
            self._bytes += piece

    def _say(self, message, deadline, fd=None):
        body = json.dumps(message).encode()
        data = len(body).to_bytes(4, "big") + body
        self._wait(deadline)
        try:
            if fd is not None:
                data = data[socket.send_fds(self._socket, [data], [fd]) :]
            self._socket.sendall(data)
        except BrokenPipeError:
            pass  # why it was closed may stand there to be read

    def _wait(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the agent said nothing in time")
        self._socket.settimeout(left)
