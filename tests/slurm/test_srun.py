"""srun by itself: job names of shells, counts that do not fit, and a process that does not come."""

import pytest

from slurm.conftest import last, same_weights

pytestmark = pytest.mark.slow
TWO = ["srun", "--nodes=2", "--ntasks-per-node=1"]
TRAIN = "python -m facelm.train experiment=hrnetv2_w18 trainer=ddp_multinode trainer.num_nodes=2 trainer.devices=1"


def test_the_name_of_a_shell(cluster, whole):
    run = cluster.folder / "bash"
    said = cluster.call(*TWO, "--job-name=bash", *TRAIN.split(), f"hydra.run.dir={run}")
    assert same_weights(last(run), whole)
    assert "`srun` command is available" not in said


def test_four_processes_for_two_devices(cluster):
    said = cluster.call("srun", "-N2", "-n4", *TRAIN.split(), f"hydra.run.dir={cluster.folder / 'four'}", check=False)
    assert "srun started 4 processes on 2 nodes" in said
    assert "#SBATCH --ntasks-per-node=1" in said
    assert "Traceback" not in said


def test_a_process_that_does_not_come(cluster):
    away = f"if [ $SLURM_PROCID = 1 ]; then sleep 300; else exec {TRAIN} hydra.run.dir=away; fi"
    job = cluster.sbatch(*TWO[1:], "--wrap", f"srun bash -c '{away}'")
    cluster.wait_for(job, "rank 0 of 2 waits for the other 1 processes, which have to reach it at n1:")
    assert "(nodes n[1-2])" in cluster.output(job)
    cluster.call("scancel", job)
