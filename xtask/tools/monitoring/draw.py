"""Draws docs/dashboards.svg from docs/measured/dashboards.json: what a real Prometheus answered to the queries of some panels.

With a file, which the test writes where NIXL_TRANSFER_MONITORING_DATA says, takes the data from there first; with --check it only compares.
"""
import json
import math
import pathlib
import sys
from html import escape

ROOT = pathlib.Path(__file__).resolve().parents[3]
DATA, PICTURE = ROOT / "docs/measured/dashboards.json", ROOT / "docs/dashboards.svg"
MAIN = [
    "fleet: Jobs by phase", "fleet: Received, by namespace", "fleet: Progress of running jobs",
    "fleet: Time left", "fleet: Ended runs, last hour", "fleet: Failures that another attempt can follow, last hour",
    "node: Sent and received", "node: Stages of hops", "node: Memory under way",
    "node: Damaged chunks, last hour", "operator: Writes of the operator", "operator: Until both ends have published",
]
COLUMNS, WIDTH, HEIGHT = 3, 430, 250
LEFT, TOP, RIGHT, PLOT = 66, 34, 14, 118
COLORS = ["#3274d9", "#e0752d", "#299c46", "#a352cc", "#d44a3a", "#1f9e9e", "#9a8700", "#7a5c3e"]
UNITS = {"bytes": ("B", 1024), "Bps": ("B/s", 1024), "s": ("s", 1000), "percentunit": ("%", 0), "ops": ("/s", 0), "short": ("", 0)}


def kept(file):
    """Of the whole data the main panels, with seconds of the run as times."""
    whole = json.loads(pathlib.Path(file).read_text())
    panels = []
    for name in MAIN:
        parts = [panel for panel in whole["panels"] if panel["panel"] == name]
        rows = [{"labels": row["metric"], "legend": part["legend"],
                 "values": [[round(at - whole["began"], 1), number(value)] for at, value in row["values"]]}
                for part in parts for row in part["result"]]
        panels.append({"panel": name, "unit": parts[0]["unit"], "queries": [part["query"] for part in parts], "rows": rows})
    return "[\n" + ",\n".join(json.dumps(panel, separators=(",", ":")) for panel in panels) + "\n]\n"


def number(text):
    return None if text in ("NaN", "+Inf", "-Inf") else float(f"{float(text):.5g}")


def legend(row):
    text = row["legend"] or " ".join(row["labels"].values())
    for name, value in row["labels"].items():
        text = text.replace("{{" + name + "}}", value)
    return text.replace("  ", " ").strip()


def readable(value, unit):
    suffix, base = UNITS[unit]
    if unit == "percentunit":
        return f"{value * 100:.0f} %"
    if base == 1024:
        for prefix in ("", "Ki", "Mi", "Gi"):
            if value < 1024 or prefix == "Gi":
                return f"{value:.3g} {prefix}{suffix}"
            value /= 1024
    if unit == "s" and 0 < value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} {suffix}".strip()


def ceiling(highest, unit):
    """A round number above the highest value."""
    if unit == "percentunit":
        return 1.0
    if highest <= 0:
        return 1.0
    base = 1024.0 ** math.floor(math.log(highest, 1024)) if UNITS[unit][1] == 1024 and highest >= 1 else 1.0
    scaled = highest / base
    step = 10.0 ** math.floor(math.log10(scaled))
    return base * next(step * factor for factor in (1, 2, 4, 6, 8, 10) if step * factor >= scaled)


def panel(data, x, y, end):
    rows, unit = data["rows"], data["unit"]
    values = [value for row in rows for _, value in row["values"] if value is not None]
    top = ceiling(max(values, default=0), unit)
    across = WIDTH - LEFT - RIGHT
    yield f'<g transform="translate({x},{y})"><rect class="panel" width="{WIDTH - 8}" height="{HEIGHT - 8}" rx="3"/>'
    board, _, title = data["panel"].partition(": ")
    yield f'<text class="title" x="10" y="20">{escape(title)} <tspan class="board">{board}</tspan></text>'
    for share in (0, 0.5, 1):
        height = TOP + PLOT * (1 - share)
        yield f'<path class="grid" d="M{LEFT} {height}h{across}"/>'
        yield f'<text class="axis" x="{LEFT - 6}" y="{height + 4}" text-anchor="end">{readable(top * share, unit)}</text>'
    for share, anchor in ((0, "middle"), (0.5, "middle"), (1, "end")):
        place = LEFT + across * share
        yield f'<text class="axis" x="{place}" y="{TOP + PLOT + 15}" text-anchor="{anchor}">{end * share:.0f} s</text>'
    for at, row in enumerate(rows):
        color, path, before = COLORS[at % len(COLORS)], "", None
        for moment, value in row["values"]:
            if value is None:
                before = None
                continue
            joined = before is not None and moment - before < 2.5
            path += f'{"L" if joined else "M"}{LEFT + across * moment / end:.1f} {TOP + PLOT * (1 - value / top):.1f}'
            path += "" if joined else "h.1"
            before = moment
        yield f'<path class="line" stroke="{color}" d="{path}"/>'
    shown = rows[:10]
    for at, row in enumerate(shown):
        place, line = 12 + (at % 2) * (WIDTH // 2 - 8), TOP + PLOT + 34 + (at // 2) * 14
        more = f" and {len(rows) - len(shown)} more" if row is shown[-1] and len(rows) > len(shown) else ""
        yield f'<path class="line" stroke="{COLORS[at % len(COLORS)]}" d="M{place} {line - 4}h10"/>'
        yield f'<text class="legend" x="{place + 14}" y="{line}">{escape(legend(row))[:34]}{more}</text>'
    yield "</g>\n"


def picture(text):
    panels = json.loads(text)
    end = max(at for data in panels for row in data["rows"] for at, _ in row["values"])
    height = HEIGHT * math.ceil(len(panels) / COLUMNS) + 8
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * WIDTH + 8} {height}" font-family="sans-serif">\n'
    yield ("<style>.panel{fill:#fff;stroke:#d8dbe0}.title{font-size:13px;font-weight:600;fill:#24292e}.board{font-size:11px;"
           "font-weight:400;fill:#8a9099}.axis,.legend{font-size:10.5px;fill:#57606a}.grid{stroke:#e6e8eb}"
           ".line{fill:none;stroke-width:1.6;stroke-linecap:round}</style>\n")
    yield '<rect width="100%" height="100%" fill="#f4f5f7"/>\n'
    for at, data in enumerate(panels):
        yield from panel(data, 8 + at % COLUMNS * WIDTH, 8 + at // COLUMNS * HEIGHT, end)
    yield "</svg>\n"


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--check"]
    if arguments:
        DATA.write_text(kept(arguments[0]))
    made = "".join(picture(DATA.read_text()))
    if "--check" in sys.argv[1:]:
        sys.exit(made != PICTURE.read_text() and "docs/dashboards.svg is stale: run python3 xtask/tools/monitoring/draw.py")
    PICTURE.write_text(made)


main()
