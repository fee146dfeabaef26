"""Reads an offline W&B run back from its file, so that the tests see what `wandb sync` would upload."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK = 32_768
_WHOLE, _LAST = 1, 4


@dataclass
class OfflineRun:
    """A run as `wandb sync` would upload it.

    `history` has a row for every logging event; `artifacts` a dict each, with name, aliases, metadata, files (name ->
    path on this disk) and references (name -> address); `metrics` what was said by `define_metric`. `exit_code` is None
    for a run that was not closed, because it still runs or was killed.
    """

    path: Path
    id: str = ""
    project: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    notes: str = ""
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None

    def curve(self, name: str) -> tuple[list[float], list[float]]:
        """(optimizer steps done, values) of a logged number."""
        rows = [row for row in self.history if name in row]
        return [row["trainer/global_step"] + 1 for row in rows], [row[name] for row in rows]

    def table(self, name: str) -> tuple[list[str], list[list[Any]]]:
        """(columns, rows) of a logged table; a picture in it is the path of its file."""
        files = next(a["files"] for a in reversed(self.artifacts) if f"{name}.table.json" in a["files"])
        content = json.loads(files[f"{name}.table.json"].read_text(encoding="utf-8"))
        rows = [[files[cell["path"]] if isinstance(cell, dict) else cell for cell in row] for row in content["data"]]
        return content["columns"], rows

    def picture(self, name: str) -> Path:
        """The file of a logged picture."""
        logged = next(row[name] for row in reversed(self.history) if name in row)
        return self.path.parent / "files" / str(logged["path"])


def offline_runs(folder: Path) -> list[Path]:
    """The files of the offline runs under a run folder, a sweep's folder or W&B's own, oldest first."""
    return sorted(folder.rglob("offline-run-*/run-*.wandb"))


def read_offline_run(path: Path) -> OfflineRun:
    """The content of a run-ID.wandb file; of one that a kill cut short, what was written whole.

    Raises:
        ValueError: it is no such file.
    """
    run = OfflineRun(path)
    for record in _records(path):
        kind = record.WhichOneof("record_type")
        content = getattr(record, kind or "header")
        if kind == "run":
            run.id, run.project, run.name = content.run_id, content.project, content.display_name
            run.group, run.job_type, run.notes = content.run_group, content.job_type, content.notes
            run.tags = tuple(content.tags)
            _update(run.config, content.config.update)
        elif kind == "config":
            _update(run.config, content.update)
        elif kind == "summary":
            _update(run.summary, content.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            _update(row, content.item)
            run.history.append(row)
        elif kind == "metric":
            summary = [option.name for option, _ in content.summary.ListFields()]
            run.metrics[content.name or content.glob_name] = {"step": content.step_metric, "summary": summary}
        elif kind == "artifact":
            run.artifacts.append(
                {
                    "name": content.name,
                    "type": content.type,
                    "aliases": sorted(content.aliases),
                    "metadata": json.loads(content.metadata or "{}"),
                    "files": {one.path: Path(one.local_path) for one in content.manifest.contents if one.local_path},
                    "references": {one.path: one.ref for one in content.manifest.contents if one.ref},
                }
            )
        elif kind == "exit":
            run.exit_code = content.exit_code
    return run


def _update(target: dict[str, Any], items: Any) -> None:
    """Sets each item's value, which is JSON, under its key or path of keys."""
    for item in items:
        *parents, last = item.nested_key or [item.key]
        place = target
        for parent in parents:
            if not isinstance(place.get(parent), dict):
                place[parent] = {}
            place = place[parent]
        place[last] = json.loads(item.value_json)


def _records(path: Path) -> Iterator[Any]:
    """The protobuf records of the file: LevelDB's log format after a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2 as messages

    content = path.read_bytes()
    if content[:4] != b":W&B":
        raise ValueError(f"{path} is no file of an offline W&B run: it does not start with :W&B")
    position, parts = 7, b""
    while position + 7 <= len(content):
        if (left := _BLOCK - position % _BLOCK) < 7:  # a block's last bytes stay empty when no header fits
            position += left
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        position += 7
        if position + length > len(content):
            return
        parts += content[position : position + length]
        position += length
        if kind in (_WHOLE, _LAST):
            yield messages.Record.FromString(parts)  # type: ignore[attr-defined]
            parts = b""
