"""Dynamo's Python at the other end of an operation: the counterpart of the example program `peer.rs`, for tests of both.

A passive verb prints the RdmaMetadata as one JSON line, waits, and prints {"status":"DONE","sha256":...}. An active verb
takes the metadata on standard input and prints the same kind of line. A failure is one line with `error`, the name of the
exception's class, and `message`. The exit code is 0 only when every operation was DONE. Nothing else is on standard
output. To be run as `python3 -S peer.py`: then what the host has installed cannot get in the way, such as a real PyTorch.
"""

import argparse
import asyncio
import math

from output import leave, say, say_failure

VERBS = ["readable", "writable", "read", "write"]


def sizes(text: str) -> list[int]:
    values = [int(size) for size in text.split(",")]
    if min(values) < 1:
        raise ValueError
    return values


def byte(text: str) -> int:
    if not 0 <= int(text) <= 255:
        raise ValueError
    return int(text)


def count(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def seconds(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise ValueError
    return float(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("--size", type=sizes, metavar="N[,N...]", help="active: as in the metadata unless given")
    parser.add_argument("--fill", type=byte, metavar="BYTE", help="else the source has a pattern, a destination zeros")
    parser.add_argument("--timeout", type=seconds, default=60.0, metavar="S", help="for each wait (60)")
    parser.add_argument("--hex", action="store_true", help="metadata as versions before October 2025 know it")
    parser.add_argument("--list", action="store_true", help="one size: a list of one descriptor, not a descriptor")
    parser.add_argument("--name", metavar="WORKER_ID", help="the agent's name is WORKER_ID-1")
    parser.add_argument("--pause", action="store_true", help='create the agent first and print {"state":"ready"}')
    parser.add_argument("--announce", action="store_true", help="active: print the status once it is posted")
    parser.add_argument("--repeat", type=count, default=1, metavar="N", help="one after the other, on one agent")
    parser.add_argument("--keep-going", action="store_true", help="a round that failed does not end the others")
    parser.add_argument("--operations", type=count, default=1, metavar="K", help="at once; passive: on one buffer")
    parser.add_argument("--release-first", action="store_true", help="the first to end is released while others go on")
    parser.add_argument("--release-each", action="store_true", help="each is released when it ends")
    parser.add_argument("--notifications", action="store_true", help="at the end, all that the agent saw, as hex")
    parser.add_argument("--time", action="store_true", help="results with the seconds since the metadata was there")
    options = parser.parse_args()
    if options.verb in ("readable", "writable") and options.size is None:
        parser.error(f"{options.verb} needs --size")
    return options


async def main(options: argparse.Namespace) -> None:
    well = True
    try:
        # Here, so that a missing module is a line of ours too.
        from dynamo.nixl_connect import Connector

        import operations

        connector = Connector(options.name)
        if options.pause:
            await connector._create_connection()
            say(state="ready")
    except Exception as problem:
        say_failure(problem)
        leave(1)
    for _ in range(options.repeat):
        try:
            round_well = await operations.run(connector, options)
        except Exception as problem:
            say_failure(problem)
            round_well = False
        well = well and round_well
        if not round_well and not options.keep_going:
            break
    if options.notifications:
        say(notifications=operations.notifications(connector))
    leave(0 if well else 1)


if __name__ == "__main__":
    asyncio.run(main(arguments()))
