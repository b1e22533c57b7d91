"""One end of a pair, with Dynamo's own module: what `end.rs` does in Rust, as a user of the module would write it.

end.py passive|active CASE...   a case is KIND:SIZE:COUNT
"""

import asyncio
import os
import sys
import time

# NIXL and the module log to standard output, which belongs to the other end.
wire = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import numpy  # noqa: E402
from dynamo.nixl_connect import Connector, Descriptor, RdmaMetadata  # noqa: E402

FILL = 0x40


def say(line):
    wire.write(line + "\n")
    wire.flush()


def hear():
    line = sys.stdin.readline().strip()
    if not line:
        sys.exit("the other end is gone")
    return line


def descriptor(array):
    return Descriptor((array, "cpu"))


async def passive(connector, plan):
    for index, (kind, size, count) in enumerate(plan):
        figures = []
        match kind:
            case "read" | "write":
                start = FILL + index if kind == "read" else 0
                array = numpy.full(size, start, dtype=numpy.uint8)
                create = connector.create_readable if kind == "read" else connector.create_writable
                for _ in range(count):
                    since = time.perf_counter_ns()
                    with await create(descriptor(array)) as operation:
                        say(operation.metadata().model_dump_json())
                        await operation.wait_for_completion()
                        if hear() != "done":
                            sys.exit("the other end said something else than done")
                        figures.append(time.perf_counter_ns() - since)
                check(array, FILL + index)
            case "idle":
                figures.append(await processor_time_of_rest(size))
            case "open":
                with await connector.create_readable(descriptor(numpy.zeros(64, numpy.uint8))) as operation:
                    waiting = asyncio.create_task(operation.wait_for_completion())
                    figures.append(await processor_time_of_rest(size))
                    waiting.cancel()
        print("figures", f"{kind}:{size}:{count}", *figures, file=sys.stderr, flush=True)


async def active(connector, plan):
    for index, (kind, size, count) in enumerate(plan):
        if kind in ("idle", "open"):
            continue
        start = FILL + index if kind == "write" else 0
        array = numpy.full(size, start, dtype=numpy.uint8)
        for _ in range(count):
            metadata = RdmaMetadata.model_validate_json(hear())
            if kind == "read":
                begun = connector.begin_read(metadata, descriptor(array))
            else:
                begun = connector.begin_write(descriptor(array), metadata)
            with await begun as operation:
                await operation.wait_for_completion()
                say("done")
        check(array, FILL + index)


async def processor_time_of_rest(seconds):
    before = time.process_time_ns()
    await asyncio.sleep(seconds)
    return time.process_time_ns() - before


def check(array, fill):
    if not (array == fill).all():
        sys.exit("wrong bytes arrived")


async def main(role, cases):
    plan = [(kind, int(size), int(count)) for kind, size, count in (case.split(":") for case in cases)]
    connector = Connector(f"{role}-{os.getpid()}")
    await (passive if role == "passive" else active)(connector, plan)


asyncio.run(main(sys.argv[1], sys.argv[2:]))
# The destructors of NIXL's libraries can crash.
wire.flush()
sys.stderr.flush()
os._exit(0)
