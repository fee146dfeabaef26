"""A progress bar on the terminal; imports rich when it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class ProgressBar:
    """Inputs done, and frames of the video at hand, on standard error; nothing where that is no terminal."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._inputs = progress.add_task("inputs", total=total)
        self._frames = progress.add_task("frames", total=None, visible=False)

    def say(self, *lines: str) -> None:
        """Prints lines above the bar."""
        for line in lines:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def start_video(self, name: str, frames: int | None) -> None:
        """Shows a bar for a video's frames."""
        self._progress.reset(self._frames, description=name[-40:], total=frames, visible=True)

    def finish_frame(self) -> None:
        """Counts a frame."""
        self._progress.advance(self._frames)

    def finish_input(self) -> None:
        """Counts an input."""
        self._progress.update(self._frames, visible=False)
        self._progress.advance(self._inputs)


@contextmanager
def progress_bar(total: int) -> Iterator[ProgressBar]:
    """A `ProgressBar` for that many inputs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield ProgressBar(progress, total)
