"""Makes the table of values in the chart's README from the comments in its values.yaml; with --check it only compares.

Understands this file's own form, not YAML as a whole: two spaces for each level, a comment right above each key.
"""
import pathlib
import re
import sys

CHART = pathlib.Path(__file__).resolve().parents[2] / "charts/nixl-transfer"
BEGIN, END = "<!-- values: begin -->\n", "<!-- values: end -->\n"
KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):(?: (.*))?$")


def rows(text):
    lines = text.splitlines()
    path, comment = [], []
    for at, line in enumerate(lines):
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped[1:].strip())
            continue
        key = KEY.match(line)
        if key and comment:
            level = len(key[1]) // 2
            path[level:] = [key[2]]
            below = []
            for following in lines[at + 1:]:
                # What belongs to this key: deeper, or the entries of a list.
                if not following.startswith(key[1] + "  ") and not following.startswith(key[1] + "- "):
                    break
                below.append(following.strip())
            default = key[3] or " ".join(below)
            if not key[3] and below and not below[0].startswith("- "):
                default = "{" + ", ".join(below) + "}"
            elif not key[3]:
                default = "[" + ", ".join(entry.removeprefix("- ") for entry in below) + "]"
            yield ".".join(path), default, " ".join(comment)
        elif key:
            path[len(key[1]) // 2:] = [key[2]]
        comment = []


def table(text):
    yield "| value | default | what it is |\n| --- | --- | --- |\n"
    for name, default, what in rows(text):
        yield f"| `{name}` | `{default}` | {what.replace('|', chr(92) + '|')} |\n"


def main():
    readme = CHART / "README.md"
    old = readme.read_text()
    before, rest = old.split(BEGIN)
    after = rest.split(END)[1]
    new = before + BEGIN + "".join(table((CHART / "values.yaml").read_text())) + END + after
    if "--check" in sys.argv[1:]:
        sys.exit(old != new and "charts/nixl-transfer/README.md is stale: run python3 xtask/tools/chart-readme.py")
    readme.write_text(new)


main()
