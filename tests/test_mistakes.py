"""A mistake is one sentence with its cure, decided in one place; no key is dropped without a word."""

import errno
import os
import signal
import subprocess
import sys

import pytest
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

import warm
from conftest import TINY, compose
from facelm.data.workers import PatientLoader
from facelm.files import take_lock
from facelm.launch.build import build_callbacks
from facelm.launch.config_check import check_config, check_typed
from facelm.launch.errors import program, say, sentence
from facelm.launch.key_names import nearest
from facelm.launch.run_log import build_tracker
from facelm.loggers import TensorBoardTracker, Tracker, WandbTracker
from facelm.train import main


def refused(*overrides):
    """What is said of a config with `overrides`."""
    with pytest.raises(ValueError) as caught:
        check_config(compose("train", *overrides))
    return str(caught.value)


class TestOwnedKeys:
    @pytest.mark.parametrize(
        ("override", "instead"),
        [
            ("+trainer.callbacks=[]", "callbacks="),
            ("+trainer.logger=false", "logger="),
            ("+trainer.default_root_dir=/x", "hydra.run.dir"),
            ("+trainer.num_sanity_val_steps=2", "debug=fast"),
            ("+trainer.plugins=[]", "trainer.precision"),
            ("+trainer.use_distributed_sampler=true", "data module"),
            ("+trainer.enable_checkpointing=false", "checkpoint.every_n_steps"),
            ("+trainer.fast_dev_run=true", "debug=fast"),
            ("+trainer.limit_test_batches=2", "data.val_list"),
            ("+trainer.limit_predict_batches=2", "data.val_list"),
            ("+data.crop_size=128", "crop.size"),
        ],
    )
    def test_are_refused_with_the_key_to_use(self, override, instead):
        said = refused(override)
        assert override.lstrip("+").partition("=")[0] in said
        assert instead in said


class TestValues:
    @pytest.mark.parametrize(
        "override",
        [
            "trainer.max_epochs=-1", "trainer.max_epochs=0", "trainer.max_epochs=null", "seed=null", "seed=1.5",
            "seed=-1", "optim.optimizer.lr=abc", "+optim.optimizer.foo=1", "optim.optimizer.lr=-1",
            "optim.schedule.milestones=abc", "+callbacks.mine.patience=3", "data.num_workers=-2", "ema.decay=abc",
            "+trainer.check_val_every_n_epoch=0", "+trainer.accumulate_grad_batches=0", "checkpoint.every_n_steps=abc",
            "data.batch_size=0", "+trainer.gradient_clip_val=-1",
        ],
    )  # fmt: skip
    def test_are_refused_before_data_are_read(self, override):
        assert override.lstrip("+").split("=")[0].split(".")[0] in refused(override)

    def test_an_end_by_steps_will_do(self):
        check_config(compose("train", "trainer.max_epochs=-1", "+trainer.max_steps=3"))

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("optim.optimizer.lr=abc", "a number"),
            ("data.batch_size=1.5", "a whole number"),
            ("bn_warmup=2", "true or false"),
            ("+optim.lr=0.1", "did you mean optim.optimizer.lr"),
            ("+nothing=1", "nothing reads"),
            ("optim.base_batch=7", None),
            ("ema.decay=0.9", None),
            ("data.num_workers=null", None),
            ("+trainer.limit_train_batches=0.5", None),
            ("+optim.optimizer.eps=1e-9", None),
            ("trainer.devices=auto", None),
        ],
    )
    def test_of_another_kind_than_the_config_s(self, override, said):
        cfg, base = compose("train", override), compose("train")
        if said is None:
            check_typed(cfg, base, [override])
            return
        with pytest.raises(ValueError, match=said):
            check_typed(cfg, base, [override])

    def test_a_key_that_another_refers_to_is_read(self):
        typed = "+ablation_weights=outputs/drawn"
        check_typed(compose("train", "ablation=drawn_pretraining", typed), compose("train"), [typed])

    def test_the_nearest_key(self):
        known = ["optim.optimizer.lr", "logger.wandb.project", "crop.size", "experiment"]
        asked = ("optim.lr", "logger.project", "crop.sise", "experimnt", "qqqqqqqq")
        assert [nearest(key, known) for key in asked] == [*known, None]


class TestSentences:
    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (OSError(errno.ENOLCK, "No locks available", "/nfs/x.lock"), "FACELM_CACHE"),
            (PermissionError(errno.EACCES, "Permission denied", "/x"), "another folder"),
            (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
                          "workers are out of shared memory. Please try to raise your shared memory limit."),
             "data.num_workers=0"),
            (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "data.num_workers"),
            (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "data.num_workers"),
            (RuntimeError("Unexpected bus error in worker. This might be caused by insufficient shared memory (shm)."),
             "/dev/shm"),
            (RuntimeError("Too many open files. Communication with the workers is no longer possible. Please increase "
                          "the limit using `ulimit -n` in the shell."), "data.num_workers"),
            (OSError(errno.EROFS, "Read-only file system", "/run/x"), "/run/x: Read-only file system. The disk"),
            (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/a/file/x"), "another folder"),
            (RuntimeError("unable to write to file </torch_12_34_5>: No space left on device (28)"), "/dev/shm"),
            (RuntimeError("Could not determine home directory."), "Set HOME"),
            (RuntimeError("[../third_party/gloo/x.cc:1] Connection closed by peer [::1]:1. GLHF!"), "another rank"),
            (MissingMandatoryValue("Missing mandatory value: checkpoint\n    full_key: x"), "checkpoint=VALUE"),
            (ValueError("Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):"
                        "\n  File\nValueError: a.png is cut short"), "a.png is cut short"),
            (UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range"), "PYTHONUTF8=1"),
        ],
    )  # fmt: skip
    def test_of_an_environment(self, error, said, capsys):
        assert said in str(sentence(error))
        assert say(error) == 1
        assert "Traceback" not in capsys.readouterr().err

    def test_a_worker_that_is_killed(self):
        batches = iter(PatientLoader(range(10**6), num_workers=1, collate_fn=list))
        next(batches)
        os.kill(batches._workers[0].pid, signal.SIGKILL)
        with pytest.raises(RuntimeError) as caught:
            for _ in batches:
                pass
        assert "resume=RUN" in str(sentence(caught.value))

    def test_ctrl_c(self, capsys):
        def interrupted():
            raise KeyboardInterrupt

        with pytest.raises(SystemExit) as caught:
            program(interrupted)()
        assert caught.value.code == 130
        assert capsys.readouterr().err.startswith("error: interrupted")

    @pytest.mark.parametrize("error", [RuntimeError("odd"), KeyError("k"), TypeError("t"), AttributeError("a")])
    def test_a_fault_of_the_code_keeps_its_traceback(self, error):
        with pytest.raises(type(error)):
            say(error)

    def test_a_file_system_without_locks(self, tmp_path, monkeypatch):
        import fcntl

        def none(*_):
            raise OSError(errno.ENOSYS, "not implemented")

        monkeypatch.setattr(fcntl, "flock", none)
        with (tmp_path / "x.lock").open("a") as file, pytest.raises(OSError, match=r"x\.lock") as caught:
            take_lock(file)
        assert "has no locks" in str(sentence(caught.value))

    def test_a_lock_that_another_has(self, tmp_path):
        with (tmp_path / "x").open("a") as one, (tmp_path / "x").open("a") as two:
            assert take_lock(one)
            assert not take_lock(two, wait=False)


class TestCommandLine:
    """Hydra's own part, in this process: no job is started."""

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["optim.lr=0.1"], "did you mean optim.optimizer.lr?"),
            (["experimnt=demo"], "did you mean experiment?"),
            (["logger=wandb", "logger.project=x"], "did you mean logger.wandb.project?"),
            (["experiment=none_such"], "hrnetv2_w18_best"),
            (["seed=null"], "seed=null"),
        ],
    )
    def test_one_message_and_an_exit_code(self, arguments, said, capsys, monkeypatch, tmp_path):
        monkeypatch.setattr(sys, "argv", ["train", *arguments, f"hydra.run.dir={tmp_path}"])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 1
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert said in err
        assert "Traceback" not in err

    def test_without_a_checkpoint_and_optimised(self, tmp_path):
        optimised = [sys.executable, "-O", "-m", "facelm.train", "--cfg", "job"]
        for done, said in (
            (warm.run(["-m", "facelm.evaluate", f"hydra.run.dir={tmp_path}"]), "checkpoint= is missing"),
            (subprocess.run(optimised, capture_output=True, text=True, check=False), "python -O"),
        ):
            assert done.returncode == 1
            assert said in done.stderr
            assert "Traceback" not in done.stderr

    def test_a_run_folder_that_cannot_be_made(self, capsys, monkeypatch, tmp_path):
        (tmp_path / "file").touch()
        monkeypatch.setattr(sys, "argv", ["train", f"hydra.run.dir={tmp_path}/file/run"])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 1
        assert "give another folder" in capsys.readouterr().err

    def test_what_was_asked_of_hydra_comes_back(self, monkeypatch):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        program(lambda: None)()
        assert os.environ["HYDRA_FULL_ERROR"] == "0"


class TestGroups:
    def test_callbacks_are_appended(self, tmp_path):
        mine = [
            "+callbacks.mine._target_=lightning.pytorch.callbacks.EarlyStopping",
            "+callbacks.mine.monitor=train/loss",
        ]
        cfg = compose("train", *TINY, "callbacks=[early_stopping,lr_monitor]", *mine)
        built = build_callbacks(cfg, tmp_path)
        assert [one.monitor for one in built if isinstance(one, EarlyStopping)] == ["val/nme", "train/loss"]
        assert [one.log_momentum for one in built if isinstance(one, LearningRateMonitor)] == [True]

    def test_none_changes_nothing(self, tmp_path):
        kinds = [type(one) for one in build_callbacks(compose("train", *TINY), tmp_path)]
        assert LearningRateMonitor in kinds
        assert EarlyStopping not in kinds

    @pytest.mark.parametrize("name", ["early_stopping", "lr_monitor", "rich_summary"])
    def test_every_file_builds(self, name, tmp_path):
        build_callbacks(compose("train", *TINY, f"callbacks={name}"), tmp_path)

    def test_debug_is_one_batch_without_workers(self):
        cfg = compose("train", "experiment=hrnetv2_w18", "debug=fast")
        assert (cfg.data.num_workers, cfg.trainer.max_epochs) == (0, 1)
        assert (cfg.trainer.limit_train_batches, cfg.trainer.limit_val_batches) == (1, 1)


class Recording(Tracker):
    def __init__(self, calls, fail=False):
        self.calls, self.fail = calls, fail

    def start(self, plan):
        super().start(plan)
        self.calls.append("start")
        if self.fail:
            raise ValueError("no")

    def finish(self, exit_code):
        self.calls.append(exit_code)


class TestSeveralLoggers:
    def test_each_has_a_node(self):
        cfg = compose("train", "logger=[wandb,tensorboard]", "logger.wandb.project=x")
        kinds = {type(one) for one in build_tracker(cfg)._trackers}
        assert kinds == {WandbTracker, TensorBoardTracker}

    def test_any_of_lightning_s(self, tmp_path):
        from facelm.loggers import RunPlan

        mine = ["+logger.mine._target_=lightning.pytorch.loggers.CSVLogger", f"+logger.mine.save_dir={tmp_path}"]
        tracker = build_tracker(compose("train", *mine))
        tracker.start(RunPlan(folder=tmp_path, experiment="x"))
        assert [type(one).__name__ for one in tracker.loggers()] == ["MetricsCSV", "CSVLogger"]

    def test_what_is_none_is_refused(self):
        with pytest.raises(ValueError, match=r"logger\.mine"):
            build_tracker(OmegaConf.create({"logger": {"mine": {"_target_": "builtins.dict"}}}))

    def test_one_that_does_not_open_closes_the_others(self, tmp_path):
        from facelm.loggers import RunPlan
        from facelm.loggers.several import Trackers

        calls: list = []
        with pytest.raises(ValueError, match="no"):
            Trackers([Recording(calls), Recording(calls, fail=True)]).start(RunPlan(folder=tmp_path, experiment="x"))
        assert calls == ["start", "start", 1]
