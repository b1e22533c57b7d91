"""The four operations of `dynamo.nixl_connect`, as peer.py's command line asks for them. The module is used as a Dynamo
worker uses it; what is private to it is touched only to create an agent early and to read its notifications.
"""

import asyncio
import faulthandler
import gc
import sys
import time
from argparse import Namespace
from typing import Any

import numpy
from dynamo.nixl_connect import Connector, Descriptor, OperationStatus, RdmaMetadata

from buffers import allocate, digest
from output import say, say_failure, say_text


class Pending:
    """One operation with its memory. Released once, and explicitly."""

    def __init__(self, operation: Any, arrays: list[numpy.ndarray], labels: dict[str, int]) -> None:
        self.operation = operation
        self.arrays = arrays
        self.labels = labels
        self.since = time.monotonic()

    def release(self) -> None:
        operation, self.operation = self.operation, None
        if operation is None:
            return
        try:
            operation.__exit__(None, None, None)
        except Exception as problem:
            # It asks for the status first, and that of a lost peer raises again. Its destructor releases it all the same.
            print(f"release: {type(problem).__name__}: {problem}", file=sys.stderr)

    async def finish(self, options: Namespace) -> None:
        try:
            await asyncio.wait_for(self.operation.wait_for_completion(), options.timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(f"not complete after {options.timeout:g} s") from None
        seconds = time.monotonic() - self.since
        # A wait also ends well when somebody has cancelled the operation.
        status = self.operation.status
        if status != OperationStatus.COMPLETE:
            raise RuntimeError(f"the operation ended as {status}")
        extra = {"seconds": round(seconds, 6)} if options.time else {}
        say(status=str(status), sha256=digest(self.arrays), **self.labels, **extra)


async def create(connector: Connector, options: Namespace) -> list[Pending]:
    """The passive side: all operations share one buffer and its registration."""
    arrays = allocate(options.size, options.fill, source=options.verb == "readable")
    local = describe(arrays, options)
    make = connector.create_readable if options.verb == "readable" else connector.create_writable
    pending = [Pending(await make(local), arrays, labels(number, options)) for number in range(options.operations)]
    for one in pending:
        say_text(one.operation.metadata(hex_encode=options.hex).model_dump_json())
        one.since = time.monotonic()
    return pending


async def begin(connector: Connector, options: Namespace) -> list[Pending]:
    """The active side: one line of metadata and one buffer for each operation."""
    pending = []
    for number in range(options.operations):
        line = await read_line(options.timeout)
        since = time.monotonic()
        remote = RdmaMetadata.model_validate_json(line)
        sizes = options.size or [descriptor.size for descriptor in remote.descriptors]
        arrays = allocate(sizes, options.fill, source=options.verb == "write")
        local = describe(arrays, options)
        if options.verb == "read":
            operation = await connector.begin_read(remote, local)
        else:
            operation = await connector.begin_write(local, remote)
        pending.append(Pending(operation, arrays, labels(number, options)))
        pending[-1].since = since
    return pending


async def run(connector: Connector, options: Namespace) -> bool:
    """One round: all its operations at once. True when each of them is DONE."""
    # A call into NIXL can block the event loop and with it every deadline; this one ends the process from outside Python.
    faulthandler.dump_traceback_later((options.operations + 1) * options.timeout + 10, exit=True)
    try:
        return await run_round(connector, options)
    finally:
        # What failed is still held by its exception, and holds a reference to the remote agent.
        gc.collect()


async def run_round(connector: Connector, options: Namespace) -> bool:
    active = options.verb in ("read", "write")
    pending = await (begin if active else create)(connector, options)
    for one in pending if active and options.announce else []:
        # The first look at the status is what posts the transfer.
        say(state=str(one.operation.status), **one.labels)
    tasks = {asyncio.ensure_future(one.finish(options)): one for one in pending}
    waiting, well, first = set(tasks), True, True
    while waiting:
        ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            one = tasks[task]
            if (problem := task.exception()) is not None:
                well = False
                say_failure(problem, **one.labels)
            if options.release_each or (options.release_first and first):
                one.release()
                say(state="released", **one.labels)
            first = False
    for one in pending:
        one.release()
    return well


def notifications(connector: Connector) -> dict[str, list[str]]:
    """All notifications that the agent ever saw, as hex, by the name of the sender."""
    connection = connector._shared_connection
    if connection is None:
        return {}
    return {name: [value.hex() for value in values] for name, values in connection._nixl.update_notifs().items()}


def describe(arrays: list[numpy.ndarray], options: Namespace) -> Descriptor | list[Descriptor]:
    descriptors = [Descriptor((array, "cpu")) for array in arrays]
    return descriptors[0] if len(descriptors) == 1 and not options.list else descriptors


def labels(number: int, options: Namespace) -> dict[str, int]:
    return {"operation": number} if options.operations > 1 else {}


async def read_line(timeout: float) -> str:
    reading = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    try:
        line = await asyncio.wait_for(reading, timeout)
    except asyncio.TimeoutError:
        raise TimeoutError(f"no metadata on standard input after {timeout:g} s") from None
    if not line.strip():
        raise EOFError("no metadata on standard input")
    return line
