"""What Dynamo's Python thinks of RdmaMetadata objects: one JSON object on each line of standard input, one answer for
each on standard output. No NIXL agent is created and no `nixl_metadata` is opened: that happens only when an operation begins.

{"ok":true,"json":TEXT,...} when the model accepts it, TEXT being what Python would send on; {"ok":false,"error":CLASS,
"message":TEXT} when not. With "ok" comes what the next step, to_descriptors(), makes of it: "descriptors", a list of
[ptr, size, device], or "later", the error that only begin_read or begin_write would raise.
"""

import sys

from output import leave, say, say_failure


def main() -> None:
    try:
        from dynamo.nixl_connect import RdmaMetadata
    except Exception as problem:
        say_failure(problem)
        leave(1)
    for line in sys.stdin.buffer:
        try:
            metadata = RdmaMetadata.model_validate_json(line.rstrip(b"\n"))
        except Exception as problem:
            say_failure(problem, ok=False)
            continue
        try:
            made = metadata.to_descriptors()
            made = made if isinstance(made, list) else [made]
            after = {"descriptors": [[one.ptr, one.size, str(one.device)] for one in made]}
        except Exception as problem:
            after = {"later": {"error": type(problem).__name__, "message": str(problem)}}
        say(ok=True, json=metadata.model_dump_json(), **after)
    leave(0)


if __name__ == "__main__":
    main()
