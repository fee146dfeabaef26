"""Medians and ratios of runs that take turns, and what they ran on.

Runs are compared in one process, one after the other in every round, so that whatever else the machine does meets all
of them. A ratio is the median over rounds of the baseline's time / the run's time in the same round.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Run = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Options:
    """How thoroughly to measure: rounds, a small instance of everything (`quick`), threads, and which clock.

    `cpu_time` counts the CPU time of one thread instead of the time on the wall: for a machine with other work on it.
    """

    rounds: int
    quick: bool
    threads: int
    cpu_time: bool

    @property
    def clock(self) -> Clock:
        """Seconds, by the clock chosen."""
        return time.thread_time if self.cpu_time else time.perf_counter


def options(description: str | None, arguments: Sequence[str] | None = None, *, rounds: int = 7) -> Options:
    """The options on the command line, applied: torch's threads are set."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="of all runs in turn")
    parser.add_argument("--quick", action="store_true", help="a tiny network, two rounds: whether it runs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of one thread: for a busy machine")
    given = parser.parse_args(arguments)
    threads = 1 if given.cpu_time else given.threads
    torch.set_num_threads(threads)
    return Options(2 if given.quick else given.rounds, given.quick, threads, given.cpu_time)


def machine(chosen: Options) -> str:
    """The processor, its instruction sets, torch's version, threads and clock: what every table must say."""
    return (
        f"{processor()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, "
        f"{chosen.threads} thread{'s' if chosen.threads > 1 else ''}, "
        f"{'CPU time of the thread' if chosen.cpu_time else 'wall time'}, {chosen.rounds} rounds"
    )


def processor() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def take_turns(runs: Mapping[str, Run], rounds: int, clock: Clock = time.perf_counter) -> dict[str, list[float]]:
    """Seconds of every run in every round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: values[1:] for name, values in seconds.items()}


def ratio(baseline: Sequence[float], variant: Sequence[float]) -> float:
    """How many times faster `variant` is: the median of the rounds' ratios."""
    return statistics.median(b / v for b, v in zip(baseline, variant, strict=True))


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles, as a share of the median."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / middle


def print_table(title: str, seconds: Mapping[str, Sequence[float]], *, images: int = 1) -> None:
    """Prints what, median milliseconds an image, spread and ratio to the first run."""
    baseline = next(iter(seconds.values()))
    width = max(len(name) for name in seconds) + 2
    print(f"\n{title}")
    print(f"{'':{width}}{'ms an image':>12}{'spread':>9}{'ratio':>9}")
    for name, values in seconds.items():
        milliseconds = 1e3 * statistics.median(values) / images
        print(f"{name:{width}}{milliseconds:12.1f}{spread(values):9.0%}{ratio(baseline, values):8.2f}x", flush=True)
