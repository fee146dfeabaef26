"""The commands of docs/running.md, with fewer processes than they name, and the sweep that submits its jobs."""

import json
import re
import sys
from pathlib import Path

import pytest

from slurm.cluster import page_blocks
from slurm.conftest import last, run_of, same_weights

pytestmark = pytest.mark.slow

(BLOCK,) = page_blocks("sbatch ")
COMMANDS = [line.partition("#")[0].split()[1:] for line in BLOCK.splitlines()]
SEEDS = [command for command in COMMANDS if "--array" in " ".join(command)]


def test_two_nodes(cluster, whole):
    assert whole["global_step"] == 24


@pytest.mark.parametrize("options", [one[:-1] for one in COMMANDS if one not in SEEDS and "--nodes=2" not in one])
def test_two_processes_of_one_node_are_two_nodes(cluster, whole, options):
    job = cluster.sbatch(*options, "--ntasks-per-node=2", "train.sh")
    cluster.wait(job, "COMPLETED")
    assert same_weights(last(run_of(cluster, job)), whole)


def test_an_array_of_seeds(cluster):
    (options,) = SEEDS
    job = cluster.sbatch("--ntasks-per-node=1", *options)
    for task in (1, 2, 3):
        cluster.wait(f"{job}_{task}", "COMPLETED")
    runs = [run_of(cluster, job, seed) for seed in (1, 2, 3)]
    assert not same_weights(last(runs[0]), last(runs[1]))
    table = cluster.call(str(Path(sys.executable).with_name("facelm")), "compare", str(runs[0].parent))
    assert "3 finished" in table
    assert "Mean ± standard deviation over seeds" in table


def test_a_sweep_that_submits_its_jobs(cluster):
    """One of them is stopped: it comes back and goes on, as a script's job does."""
    (line,) = [
        line for block in page_blocks("python -m facelm.train -m") for line in block.splitlines() if "submitit" in line
    ]
    sweep = cluster.folder / "sweep"
    cluster.call(*line.split(), f"hydra.sweep.dir={sweep}", "trainer.max_epochs=2")
    assert "3 finished" in (sweep / "sweep.md").read_text()
    overrides = [json.loads((sweep / str(job) / "result.json").read_text())["overrides"] for job in range(3)]
    assert [re.findall(r"'seed=(\d)'", str(one)) for one in overrides] == [["1"], ["2"], ["3"]]
