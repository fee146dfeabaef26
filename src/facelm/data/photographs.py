"""Where the photograph of an annotation lies: tools write other paths into a file than the pictures have."""

from __future__ import annotations

import os
from pathlib import Path


class Photographs:
    """The photographs under `root`; the folders below it are listed once, and only where they are asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, name: str, file: Path) -> Path:
        """The photograph that `file` calls `name`: under the root, its `images/`, or beside the file; else anywhere.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it may be one of several.
        """
        for folder in (self.root, self.root / "images", file.parent):
            if (folder / name).is_file():
                return folder / name
        return self._below(name, file)

    def _below(self, name: str, file: Path) -> Path:
        """The path below the root that ends in `name`; of several, the one that shares most folders with `file`.

        CVAT writes images/default/a.jpg and calls it a.jpg; Roboflow's photographs lie in train/, valid/ and test/.
        """
        ending = Path(name).parts
        found = [path for path in self._all().get(ending[-1], []) if path.parts[-len(ending) :] == ending]
        shared = [len(Path(os.path.commonpath([path.absolute(), file.absolute()])).parts) for path in found]
        nearest = sorted(path for path, count in zip(found, shared, strict=True) if count == max(shared))
        if not nearest:
            raise FileNotFoundError(f"no photograph '{name}' under data.root={self.root} or beside '{file}'")
        if len(nearest) > 1:
            those = " or ".join(f"'{path}'" for path in nearest[:3])
            raise ValueError(
                f"the photograph '{name}' may be {those}: write the folder before its name, or give a data.root that "
                "holds one of them"
            )
        return nearest[0]

    def _all(self) -> dict[str, list[Path]]:
        if self._by_name is None:
            self._by_name = {}
            for folder, _, names in os.walk(self.root):
                for one in sorted(names):
                    self._by_name.setdefault(one, []).append(Path(folder, one))
        return self._by_name
