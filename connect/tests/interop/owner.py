"""Dynamo's Python as the owner of memory that somebody else uses in pieces: it offers the memory, and says how it stands when
it is asked. Before and after each array lie bytes that nobody may touch.

Prints the RdmaMetadata as one JSON line, then one line for each line of its input: `status`; `sum`, the SHA-256 of the
memory and whether the bytes around it are as they were; `wait SECONDS`, which ends as a wait of peer.py does. Released and
gone with the end of its input. To be run as `python3 -S owner.py`.
"""

import argparse
import asyncio
import sys

import numpy

from buffers import digest, put_pattern
from output import leave, say, say_failure, say_text

AROUND = 1 << 16
CANARY = 0xA5


class Guarded:
    """An array of its own allocation, with canaries on both sides."""

    def __init__(self, size: int) -> None:
        self.whole = numpy.full(size + 2 * AROUND, CANARY, dtype=numpy.uint8)
        self.array = self.whole[AROUND : AROUND + size]
        self.array[:] = 0

    def is_whole(self) -> bool:
        return bool((self.whole[:AROUND] == CANARY).all() and (self.whole[AROUND + self.array.size :] == CANARY).all())


def allocate(sizes: list[int], source: bool) -> list[Guarded]:
    memory = [Guarded(size) for size in sizes]
    start = 0
    for one in memory if source else []:
        put_pattern(one.array, start)
        start += one.array.size
    return memory


async def wait(operation: object, seconds: float) -> None:
    try:
        await asyncio.wait_for(operation.wait_for_completion(), seconds)
    except asyncio.TimeoutError:
        say(error="TimeoutError", message=f"not complete after {seconds:g} s")
        return
    say(status=str(operation.status))


async def obey(words: list[str], operation: object, memory: list[Guarded]) -> None:
    match words:
        case ["status"]:
            say(status=str(operation.status))
        case ["sum"]:
            say(sha256=digest([one.array for one in memory]), whole=all(one.is_whole() for one in memory))
        case ["wait", seconds]:
            await wait(operation, float(seconds))
        case _:
            say(error="Mistake", message=f"no such command: {words}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["readable", "writable"])
    parser.add_argument("sizes", type=lambda text: [int(size) for size in text.split(",")])
    options = parser.parse_args()
    try:
        # Here, so that a missing module is a line of ours too.
        from dynamo.nixl_connect import Connector, Descriptor

        memory = allocate(options.sizes, source=options.verb == "readable")
        local = [Descriptor((one.array, "cpu")) for one in memory]
        connector = Connector()
        make = connector.create_readable if options.verb == "readable" else connector.create_writable
        operation = await make(local if len(local) > 1 else local[0])
        say_text(operation.metadata().model_dump_json())
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            await obey(line.split(), operation, memory)
        operation.__exit__(None, None, None)
    except Exception as problem:
        say_failure(problem)
        leave(1)
    leave(0)


if __name__ == "__main__":
    asyncio.run(main())
