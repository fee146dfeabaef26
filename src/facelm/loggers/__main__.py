"""Shows an offline W&B run without a server: `python -m facelm.loggers RUN [--picture FILE.png]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facelm.data.images import read_image
from facelm.evaluation.plots import run_plot
from facelm.files import write_whole
from facelm.loggers.offline import OfflineRun, offline_runs, read_offline_run

CURVES = ("train/loss", "val/nme", "train/lr", "train/images_per_second", "train/data_wait")


def main(arguments: list[str] | None = None) -> int:
    """The exit code; prints what the newest offline run under a folder holds, and draws it if asked to."""
    parser = argparse.ArgumentParser(prog="python -m facelm.loggers", description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder, or a run-ID.wandb file")
    parser.add_argument("--picture", type=Path, help="draws the run into this PNG file")
    asked = parser.parse_args(arguments)
    paths = [asked.run] if asked.run.is_file() else offline_runs(asked.run)
    if not paths:
        print(f"error: no offline W&B run under {asked.run}", file=sys.stderr)
        return 1
    run = read_offline_run(paths[-1])
    for name, value in facts(run):
        print(f"{name:<14}{value}")
    if asked.picture:
        write_whole(asked.picture, picture(run))
    return 0


def facts(run: OfflineRun) -> list[tuple[str, str]]:
    """(name, value) of what W&B shows on a run's first page."""
    known = run.config.get("facts", {})
    data = [f"{name} {part['faces']} faces, {part['fingerprint']}" for name, part in known.get("data", {}).items()]
    models = [artifact for artifact in run.artifacts if artifact["type"] == "model"]
    lines = {
        "name": run.name,
        "project": run.project,
        "group": run.group,
        "job_type": run.job_type,
        "tags": ", ".join(run.tags),
        "notes": run.notes,
        "exit code": "not closed" if run.exit_code is None else str(run.exit_code),
        "commit": str(known.get("commit") or "")[:12],
        "data": "; ".join(data),
        "network": f"{known['parameters'] / 1e6:.3g} M parameters, {known['gmacs']:.3g} GMACs" if known else "",
        "artifact": "; ".join(f"{model['name']} ({', '.join(model['aliases'])})" for model in models),
    }
    return [(name, value) for name, value in lines.items() if value]


def picture(run: OfflineRun) -> bytes:
    """A page with the run's facts, curves, table, CED curve, bars per region and worst faces, as PNG."""
    columns, rows = run.table("report/table")
    worst = [read_image(row[-1]) for row in run.table("report/worst")[1][:6]]
    report = [read_image(run.picture(f"report/{name}")) for name in ("ced", "regions")]
    curves = {name: run.curve(name) for name in CURVES}
    return run_plot(curves, (columns, rows), facts(run), [report, worst])


if __name__ == "__main__":
    sys.exit(main())
