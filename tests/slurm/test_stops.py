"""Jobs that are stopped, pushed out, cancelled or lose a node, and end with the weights of one that was not."""

import json

import pytest

from slurm.cluster import lost_node
from slurm.conftest import last, run_of, same_weights

pytestmark = pytest.mark.slow
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")


@pytest.fixture
def started(cluster):
    """`started(*options)`: the number of a job on two nodes that has its first epoch done, but not its last."""
    jobs = []

    def start(*options, slow=0.3):
        job = cluster.sbatch(*TWO_NODES, *options, "train.sh", slow=slow)
        jobs.append(job)
        cluster.wait_for(job, run_of(cluster, job) / "checkpoints" / "last.ckpt")
        return job

    yield start
    for job in jobs:
        cluster.call("scancel", job, check=False)


def steps(cluster, job):
    return last(run_of(cluster, job))["global_step"]


def result(cluster, job):
    return json.loads((run_of(cluster, job) / "result.json").read_text())


def is_whole(cluster, job, whole):
    """The job went on (it did not begin again), and its weights are the undisturbed run's."""
    output = cluster.output(job)
    assert "going on with it" in output
    assert result(cluster, job)["status"] == "finished"
    return same_weights(last(run_of(cluster, job)), whole)


@pytest.mark.parametrize("name", ["USR1", "TERM"])
def test_a_signal_saves_and_requeues(cluster, started, whole, name):
    job = started()
    cluster.call("scancel", f"--signal={name}", job)
    cluster.wait(job, "PENDING", "RUNNING", restarts=1)
    assert 0 < steps(cluster, job) < whole["global_step"]
    cluster.wait(job, "COMPLETED", restarts=1)
    assert f"stopped by SIG{name}" in cluster.output(job)
    assert f"SLURM job {job} requeued" in cluster.output(job)
    assert is_whole(cluster, job, whole)


def test_a_signal_while_the_report_is_made(cluster, started):
    job = started(slow=0)
    cluster.wait_for(job, "`Trainer.fit` stopped")
    cluster.call("scancel", "--signal=USR1", job)
    cluster.wait(job, "COMPLETED", restarts=1)
    assert result(cluster, job)["status"] == "finished"
    assert (run_of(cluster, job) / "report" / "summary.json").is_file()


def test_the_script_s_own_signal_comes_before_the_end(cluster, started, whole):
    """SLURM looks each half minute whose end is near."""
    job = started("--time=2", "--signal=USR1@60", slow=5)
    cluster.wait(job, "PENDING", "RUNNING", restarts=1)
    cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    cluster.wait(job, "COMPLETED", restarts=1)
    assert "stopped by SIGUSR1" in cluster.output(job)
    assert is_whole(cluster, job, whole)


def test_a_time_limit_ends_it(cluster, started, whole):
    """The script's USR1 would come at once: CONT does nothing."""
    job = started("--time=1", "--signal=CONT@1", slow=5)
    cluster.wait(job, "TIMEOUT")
    assert result(cluster, job)["status"] == "stopped"
    assert "only if SLURM itself has requeued it" in cluster.output(job)
    cluster.call("scontrol", "requeue", job)
    cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    cluster.wait(job, "COMPLETED", restarts=1)
    assert is_whole(cluster, job, whole)


def test_scancel_ends_it(cluster, started, whole):
    job = started()
    cluster.call("scancel", job)
    cluster.wait(job, "CANCELLED")
    assert "only if SLURM itself has requeued it" in cluster.output(job)
    assert result(cluster, job)["status"] == "stopped"
    cluster.call("scontrol", "requeue", job)
    cluster.wait(job, "COMPLETED", restarts=1)
    assert is_whole(cluster, job, whole)


def test_scontrol_requeue(cluster, started, whole):
    job = started()
    cluster.call("scontrol", "requeue", job)
    cluster.wait(job, "COMPLETED", restarts=1)
    assert is_whole(cluster, job, whole)


def test_pushed_out_of_its_partition(cluster, started, whole):
    job = started("--partition=preemptible")
    other = cluster.sbatch("--nodes=2", "--exclusive", "--wrap", "srun sleep 3")
    cluster.wait(other, "COMPLETED")
    cluster.wait(job, "COMPLETED", restarts=1)
    assert is_whole(cluster, job, whole)


def test_a_lost_node(cluster, started, whole):
    """It is not there any more, all at once: nobody says goodbye."""
    job = started(slow=1)
    with lost_node(cluster, "n2"):
        cluster.wait(job, "PENDING", "COMPLETING", seconds=60)
    cluster.wait(job, "COMPLETED", restarts=1)
    assert "Node failure on n2" in cluster.output(job)
    assert is_whole(cluster, job, whole)


def test_where_slurm_may_not_requeue_it(cluster, started):
    job = started("--no-requeue")
    cluster.call("scancel", "--signal=USR1", job)
    cluster.wait(job, "FAILED")
    assert f"SLURM job {job} is not requeued: only jobs of sbatch --requeue are" in cluster.output(job)
    assert f"resume={run_of(cluster, job)}" in cluster.output(job).replace("/checkpoints/last.ckpt", "")
