"""Unzips a wheel, whole or in parts, and checks files against the digests in the RECORD that each wheel carries: what pip
does when it installs, without an installation. Writes only into the directory that is named.

wheel.py extract WHEEL INTO [PREFIX ...]   members whose names begin with a PREFIX, or all
wheel.py verify DIRECTORY [FILE ...]       each file must be as its RECORD says, and each FILE must be one of them
"""

import base64
import csv
import hashlib
import pathlib
import sys
import zipfile


def extract(wheel: str, into: str, prefixes: list[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        # startswith(("",)) is true for every name.
        chosen = [name for name in archive.namelist() if name.startswith(tuple(prefixes or [""]))]
        if not chosen:
            sys.exit(f"{wheel} has nothing that begins with {' or '.join(prefixes)}")
        archive.extractall(into, chosen)


def verify(directory: str, wanted: list[str]) -> None:
    root = pathlib.Path(directory)
    recorded = {}
    for record in root.glob("*.dist-info/RECORD"):
        with record.open(newline="") as rows:
            recorded.update({row[0]: row[1] for row in csv.reader(rows) if row})
    # Python's own cache of compiled modules comes later, when a peer runs.
    files = [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    checked = set()
    for path in files:
        name = path.relative_to(root).as_posix()
        expected = recorded.get(name)
        if expected is None:
            sys.exit(f"{name} is in no RECORD")
        if expected == "" and name.endswith(".dist-info/RECORD"):
            continue
        if expected != digest(path, expected.partition("=")[0]):
            sys.exit(f"{name} is not what its RECORD says")
        checked.add(name)
    for name in wanted:
        if name not in checked:
            sys.exit(f"{name} is missing")
    if not checked:
        sys.exit(f"{directory} has no file that a RECORD names")
    print(f"{len(checked)} files are as recorded")


def digest(path: pathlib.Path, algorithm: str) -> str:
    value = hashlib.new(algorithm, path.read_bytes()).digest()
    return f"{algorithm}={base64.urlsafe_b64encode(value).rstrip(b'=').decode()}"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["extract", wheel, into, *prefixes]:
            extract(wheel, into, prefixes)
        case ["verify", directory, *wanted]:
            verify(directory, wanted)
        case _:
            sys.exit(__doc__)
