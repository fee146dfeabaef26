"""Wheel and sdist hold what git tracks, and no private file that lies beside it; without git, all that is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKED = ("src", "conf", "tests")


class TrackedFiles(BuildHookInterface):
    """Leaves out what git does not track, and puts the configs into the package: Hydra's configs travel with it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Changes what is packed."""
        root = Path(self.root)
        untracked = _untracked(root)
        excluded = self.build_config.target_config.setdefault("exclude", [])
        excluded += ["/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", name) for name in untracked]
        if self.target_name == "wheel" and version == "standard":
            found = {path.relative_to(root).as_posix() for path in (root / "conf").rglob("*") if path.is_file()}
            for name in sorted(found - {*untracked}):
                build_data["force_include"][str(root / name)] = f"facelm/{name}"


def _untracked(root: Path) -> list[str]:
    """Files below `PACKED` that git does not track; none where `root` is not the top of a checkout."""
    git = ["git", "-C", str(root)]
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True)
        if Path(top.stdout.rstrip("\n")).resolve() != root.resolve():
            return []
        names = subprocess.run([*git, "ls-files", "--others", "-z", "--", *PACKED], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [name for name in names.stdout.decode(errors="surrogateescape").split("\0") if name]
