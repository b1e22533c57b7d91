"""Dynamo's Python with Dynamo's Python, for people: every pair of the NIXL versions found, both directions, and the time
of each. Shows that peer.py works before anything is tested against it. Loopback only; every process has a deadline.

pairs.py [DIRECTORY]   the directory holds nixl-1.5.1 and nixl-1.4.1; .tools/python of the checkout unless given
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
DEADLINE = 60.0
CASES = [
    ("64", []),
    ("64,32,1", []),
    ("65536,300000,1,77777", []),
    (str(64 << 20), []),
    ("64,32,1", ["--hex"]),
    ("64", ["--list"]),
]


class Peer:
    def __init__(self, directory: pathlib.Path, arguments: list[str]) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{directory}:{HERE / 'standins'}",
            "UCX_TLS": "tcp",
            "UCX_NET_DEVICES": "lo",
            "UCX_ERROR_SIGNALS": "",
        }
        command = [sys.executable, "-S", str(HERE / "peer.py"), *arguments, f"--timeout={DEADLINE}", "--time"]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        # Nothing stays behind when a peer hangs before it looks at its own deadline.
        self.watchdog = threading.Timer(2 * DEADLINE, self.child.kill)
        self.watchdog.start()

    def line(self) -> str:
        line = self.child.stdout.readline()
        if not line or "error" in json.loads(line):
            self.end()
            sys.exit(f"{self.child.args}: {line}\n{self.child.stderr.read()}")
        return line

    def say(self, line: str) -> None:
        self.child.stdin.write(line)
        self.child.stdin.flush()

    def end(self) -> int:
        code = self.child.wait(DEADLINE)
        self.watchdog.cancel()
        return code


def pair(passive: pathlib.Path, active: pathlib.Path, verbs: tuple[str, str], size: str, extra: list[str]) -> str:
    started = time.monotonic()
    serving = Peer(passive, [verbs[0], "--size", size, *extra])
    moving = Peer(active, [verbs[1], "--pause", *(option for option in extra if option != "--hex")])
    moving.line()
    metadata = serving.line()
    ready = time.monotonic() - started
    moving.say(metadata)
    results = [json.loads(moving.line()), json.loads(serving.line())]
    codes = [moving.end(), serving.end()]
    same = results[0]["sha256"] == results[1]["sha256"] == expected(size, results[0]["sha256"])
    verdict = "ok" if same and codes == [0, 0] else f"WRONG: {results} {codes}"
    kind = "hex" if not json.loads(metadata)["nixl_metadata"].startswith("b64:") else "b64"
    total = time.monotonic() - started
    times = " ".join(f"{results[end]['seconds']:>8.3f}" for end in (0, 1))
    who = f"{passive.name:<11} {active.name:<11} {verbs[1]:<6} {size:<20} {kind}"
    return f"{who} {ready:>7.2f} {times} {total:>7.2f}  {verdict}"


def expected(size: str, otherwise: str) -> str:
    """The digest of the source's pattern, made here again in a plain way that would take too long for many bytes."""
    total = sum(int(part) for part in size.split(","))
    if total > 1 << 20:
        return otherwise
    return hashlib.sha256(bytes((i * 0x9E3779B97F4A7C15 % 2**64) >> 56 for i in range(total))).hexdigest()


def main() -> None:
    default = HERE.parents[2] / ".tools/python"
    directories = sorted(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else default).glob("nixl-*"), reverse=True)
    if not directories:
        sys.exit("no peer: run `cargo xtask tools`")
    print("passive     active      verb   sizes                md    ready   active  passive   total  (seconds)")
    lines = []
    for passive in directories:
        for active in directories:
            for verbs in (("readable", "read"), ("writable", "write")):
                for size, extra in CASES:
                    lines.append(pair(passive, active, verbs, size, extra))
                    print(lines[-1], flush=True)
    if not all(line.endswith("ok") for line in lines):
        sys.exit("not all were right")


if __name__ == "__main__":
    main()
