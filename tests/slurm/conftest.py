"""A SLURM of two nodes for all tests of this folder, and the run that nothing disturbs."""

import os
import shutil
import subprocess

import pytest
import torch

from conftest import TINY
from slurm.cluster import HERE, Cluster, page_blocks

EPOCHS = 6  # of 4 steps: 24 faces, two processes with 3 each


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """The folder of a SLURM that runs."""
    path = os.environ["PATH"] + ":/usr/sbin"
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name, path=path)]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: apt-get install slurm-wlm munge")
    if os.getuid():
        pytest.skip("a SLURM of two nodes is started as root")
    folder = tmp_path_factory.mktemp("slurm")
    try:
        subprocess.run([HERE / "up.sh", folder], check=True)
        yield folder
    finally:
        subprocess.run([HERE / "down.sh", folder], check=True)


@pytest.fixture(scope="session")
def cluster(slurm, drawn_root, tmp_path_factory):
    """Where jobs are submitted, with the script of docs/running.md as train.sh."""
    small = [one for one in TINY if not one.startswith(("trainer=", "data.num_workers", "data.batch_size"))]
    small += [f"data.root={drawn_root}", "data.num_workers=1", "data.batch_size=3", "trainer.accelerator=cpu"]
    small += [f"trainer.max_epochs={EPOCHS}", "trainer.log_every_n_steps=1", "data.cache=none"]
    cluster = Cluster(slurm, tmp_path_factory.mktemp("jobs"), small)
    (script,) = page_blocks("#!/bin/bash")
    (cluster.folder / "train.sh").write_text(script)
    return cluster


@pytest.fixture(scope="session")
def whole(cluster):
    """last.ckpt of a run on two nodes that nothing disturbs."""
    job = cluster.sbatch("--nodes=2", "--ntasks-per-node=1", "train.sh")
    cluster.wait(job, "COMPLETED")
    return last(run_of(cluster, job))


def run_of(cluster, job, seed=0):
    return cluster.folder / "outputs" / "hrnetv2_w18" / job / str(seed)


def last(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def same_weights(one, other):
    """Bit for bit."""
    one, other = one["state_dict"], other["state_dict"]
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
