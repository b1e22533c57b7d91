"""Standard output carries our JSON lines and nothing else: what libraries print there goes to standard error. To be
imported before anything that may print.
"""

import json
import os
import sys
from typing import Any, NoReturn

_lines = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
os.dup2(2, 1)


def say(**values: Any) -> None:
    say_text(json.dumps(values, separators=(",", ":")))


def say_text(line: str) -> None:
    try:
        _lines.write(line + "\n")
    except BrokenPipeError:
        # Whoever asked is gone.
        os._exit(1)


def say_failure(problem: BaseException, **values: Any) -> None:
    """The class and the text of an exception, and why it was raised if it says so."""
    message = str(problem)
    if problem.__cause__ is not None:
        message = f"{message} ({type(problem.__cause__).__name__}: {problem.__cause__})"
    say(**values, error=type(problem).__name__, message=message)


def leave(code: int) -> NoReturn:
    """Ends without destructors: those of NIXL's libraries can crash at exit."""
    sys.stderr.flush()
    os._exit(code)
