# SPDX-License-Identifier: Apache-2.0
"""A worker that breaks the rule: it writes its memory while a transfer does. Else as `dynamo_memory.py writable`."""

import asyncio
import os
import sys
import threading

import numpy
from dynamo.nixl_connect import Connector, Descriptor

from dynamo_memory import publish


async def main(_verb, region, size):
    memory = numpy.zeros(int(size), dtype=numpy.uint8)

    def scribble():
        while True:
            memory[0] = (int(memory[0]) + 1) % 256

    threading.Thread(target=scribble, daemon=True).start()
    descriptor = Descriptor((memory.ctypes.data, memory.nbytes, "cpu", memory))
    with await Connector().create_writable(descriptor) as operation:
        publish(region, operation.metadata().model_dump_json())
        print("published", flush=True)
        await operation.wait_for_completion()
        print("complete", flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
