"""From a config to trainers, ranks and launchers."""

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only

import facelm.train  # noqa: F401  registers the resolver of hydra.run.dir
from conftest import TINY, compose
from facelm.launch import ddp
from facelm.launch.build import build_network, build_trainer, model_spec
from facelm.launch.ddp import resolve_devices
from facelm.launch.jobs import Job
from facelm.launch.paths import CONF_DIR
from facelm.models import save_weights
from facelm.train import ranks_to_start


def compose_hydra(*overrides):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return hydra_compose("train", overrides=list(overrides), return_hydra_config=True).hydra


@pytest.fixture
def gpus(monkeypatch):
    """As many GPUs as a call says."""
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


class TestDevices:
    @pytest.mark.parametrize(
        ("here", "accelerator", "devices", "found"),
        [
            (8, "auto", "auto", ("gpu", 8)),
            (16, "auto", "auto", ("gpu", 8)),
            (0, "auto", "auto", ("cpu", 1)),
            (8, "gpu", 3, ("gpu", 3)),
            (8, "cpu", "auto", ("cpu", 1)),
            (8, "auto", "1", ("gpu", 1)),
        ],
    )
    def test_found(self, gpus, here, accelerator, devices, found):
        gpus(here)
        assert resolve_devices(accelerator, devices, 8) == found

    @pytest.mark.parametrize(
        ("accelerator", "devices", "message"),
        [
            ("gpu", 3, "trainer.devices=3, but this machine has 2"),
            ("gpu", 0, "number of devices or auto, got 0"),
            ("gpu", -1, "got -1"),
            ("cpu", 999, "trainer.devices=999, but this machine has"),
        ],
    )
    def test_a_number_is_obeyed_or_refused(self, gpus, accelerator, devices, message):
        gpus(2)
        with pytest.raises(ValueError, match=message):
            resolve_devices(accelerator, devices, 8)


class TestTrainer:
    @staticmethod
    def build(folder, *overrides):
        cfg = compose("train", *TINY, *overrides)
        return build_trainer(cfg, loggers=[], callbacks=[], run_dir=folder)

    def test_one_process(self, tmp_path):
        trainer = self.build(tmp_path)
        assert not isinstance(trainer.strategy, DDPStrategy)
        assert trainer.world_size == 1

    def test_a_rank_with_sync_batchnorm(self, tmp_path, monkeypatch):
        """Composition only: torch's SyncBatchNorm refuses CPU tensors."""
        monkeypatch.setenv(ddp.STARTED_BY, "1")
        monkeypatch.setenv("LOCAL_RANK", "1")
        monkeypatch.setattr(rank_zero_only, "rank", 0)  # the trainer sets it for the whole process: put back afterwards
        monkeypatch.setenv("SLURM_NTASKS", "1")  # inside a SLURM job that is one process, ranks are still ours
        trainer = self.build(
            tmp_path, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.sync_batchnorm=true"
        )
        assert isinstance(trainer.strategy, DDPStrategy)
        assert isinstance(trainer.strategy._layer_sync, TorchSyncBatchNorm)
        assert trainer.strategy.cluster_environment.creates_processes_externally
        assert trainer.world_size == 2

    def test_our_sampler_is_left_alone(self, tmp_path):
        assert self.build(tmp_path)._accelerator_connector.use_distributed_sampler is False


class TestRanksToStart:
    @pytest.fixture(autouse=True)
    def alone(self, monkeypatch):
        for name in (*ddp.RANK_VARIABLES, "SLURM_NTASKS", "SLURM_PROCID"):
            monkeypatch.delenv(name, raising=False)

    def test_on_one_machine(self, gpus):
        gpus(4)
        assert ranks_to_start(compose("train", "trainer=ddp"), Job()) == 4
        assert ranks_to_start(compose("train", "trainer=gpu"), Job()) == 1
        assert ranks_to_start(compose("train", "trainer=cpu"), Job()) == 1

    def test_several_machines_need_srun_or_torchrun(self, gpus, monkeypatch):
        gpus(8)
        cfg = compose("train", "trainer=ddp_multinode")
        with pytest.raises(ValueError, match="num_nodes=2: on several machines srun or torchrun start the processes"):
            ranks_to_start(cfg, Job())


class TestHydra:
    def test_launchers(self):
        pytest.importorskip("joblib")
        pytest.importorskip("submitit")
        assert compose_hydra("launcher=joblib").launcher.n_jobs == 2
        slurm = compose_hydra("launcher=submitit", "hydra.launcher.gpus_per_node=8").launcher
        assert slurm._target_.endswith("SlurmLauncher")
        assert (slurm.tasks_per_node, slurm.gpus_per_node) == (1, 8)
        assert slurm.additional_parameters.signal == "TERM@120"  # what LastCheckpoint listens to; submitit sends USR2
        assert compose_hydra().launcher._target_.endswith("BasicLauncher")

    def test_sweeps(self):
        assert compose_hydra("sweep=seeds").sweeper.params == {"seed": "1,2,3"}
        assert set(compose_hydra("sweep=lr_sigma").sweeper.params) == {"optim.optimizer.lr", "codec.sigma"}
        optuna = compose_hydra("sweep=optuna", "hydra.sweeper.n_trials=3").sweeper
        assert (optuna._target_, optuna.n_trials) == ("hydra_plugins.facelm_optuna.OptunaSweeper", 3)
        for sweep in ("seeds", "lr_sigma", "optuna"):
            assert compose_hydra(f"sweep={sweep}").mode.name == "MULTIRUN"
            assert compose_hydra(f"sweep={sweep}", "hydra.mode=RUN").mode.name == "RUN"  # what ranks are told


@pytest.mark.parametrize("resume", ["resume=auto", "resume=null"])
def test_a_new_run_starts_from_the_weights_that_are_named(tmp_path, resume):
    named = build_network(cfg := compose("train", *TINY), model_spec(cfg))
    save_weights(named, tmp_path / "named.pth")
    cfg = compose("train", *TINY, resume, f"model.weights={tmp_path / 'named.pth'}")
    torch.manual_seed(9)
    found = build_network(cfg, model_spec(cfg)).state_dict()
    assert all(torch.equal(found[name], value) for name, value in named.state_dict().items())
