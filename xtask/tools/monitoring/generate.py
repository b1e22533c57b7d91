"""Writes the chart's dashboards and rules from `dashboards.py` and `rules.py`; with --check it only compares.

The checks that need no Prometheus are here too: every alert has its section in the runbooks.
"""
import json
import pathlib
import re
import sys

sys.dont_write_bytecode = True
from dashboards import DASHBOARDS
from rules import ALERTS, RECORDED

ROOT = pathlib.Path(__file__).resolve().parents[3]
FILES = ROOT / "charts/nixl-transfer/files"
RUNBOOKS = ROOT / "docs/runbooks.md"
BOOK = re.search(r'^repository = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1] + "/blob/main/docs/runbooks.md"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(name, title, variables, panels):
    return {"uid": f"nixl-transfer-{name}", "title": title, "tags": ["nixl-transfer"], "schemaVersion": 39,
            "editable": True, "refresh": "30s", "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": variables}, "panels": list(placed(panels))}


def placed(panels):
    """Stats four in a row, all others two."""
    x, y = 0, 0
    for number, (title, kind, unit, queries, seen) in enumerate(panels, start=1):
        width, height = (6, 4) if kind == "stat" else (12, 8)
        if x + width > 24:
            x, y = 0, y + above
        now = kind == "cell"
        targets = [{"refId": chr(ord("A") + at), "expr": expr, "legendFormat": legend,
                    **({"instant": True, "format": "table"} if now else {})}
                   for at, (expr, legend) in enumerate(queries)]
        yield {"id": number, "title": title, "description": seen, "type": "table" if now else kind,
               "datasource": SOURCE, "gridPos": {"x": x, "y": y, "w": width, "h": height},
               "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []}, "targets": targets}
        x, above = x + width, height


def rules():
    """YAML whose strings are written as JSON, which YAML takes."""
    yield "# Made by xtask/tools/monitoring/generate.py.\ngroups:\n- name: nixl-transfer.recorded\n  rules:\n"
    for name, expr in RECORDED:
        yield f"  - record: {name}\n    expr: {json.dumps(expr)}\n"
    yield "- name: nixl-transfer.alerts\n  rules:\n"
    for name, severity, since, expr, summary, description in ALERTS:
        yield f"  - alert: NixlTransfer{name}\n    expr: {json.dumps(expr)}\n"
        yield f"    for: {since}\n" if since else ""
        yield f"    labels: {{severity: {severity}}}\n    annotations:\n"
        yield f"      summary: {json.dumps(summary)}\n      description: {json.dumps(description)}\n"
        yield f"      runbook_url: {BOOK}#nixltransfer{name.lower()}\n"


def files():
    for name, title, variables, panels in DASHBOARDS:
        text = json.dumps(dashboard(name, title, variables, panels), indent=1)
        yield FILES / "dashboards" / f"{name}.json", text + "\n"
    yield FILES / "rules.yaml", "".join(rules())


def main():
    sections = re.findall(r"^## (NixlTransfer\w+)$", RUNBOOKS.read_text(), re.M)
    alerts = [f"NixlTransfer{name}" for name, *_ in ALERTS]
    if sections != alerts:
        sys.exit(f"docs/runbooks.md must have one section for each alert, in this order: {', '.join(alerts)}")
    made = dict(files())
    foreign = set((FILES / "dashboards").iterdir()) - set(made)
    if "--check" in sys.argv[1:]:
        stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
        if stale or foreign:
            names = ", ".join(str(path.relative_to(ROOT)) for path in [*stale, *foreign])
            sys.exit(f"stale: {names}; run python3 xtask/tools/monitoring/generate.py")
        return
    for path in foreign:
        path.unlink()
    for path, text in made.items():
        path.write_text(text)


main()
