"""A run's overrides as a list that can be changed, and one recipe of two trainings as two experiments."""

import subprocess
import sys

import pytest

from conftest import compose
from facelm.launch.resume import merged, refuse_first


def test_of_two_overrides_of_one_key_the_later_counts():
    assert merged(["a=null", "+b=2", "a.c=3"], ["b=4", "a=null"]) == ["a.c=3", "+b=4", "a=null"]


def test_a_key_that_was_added_stays_added():
    """Nothing but the `+` makes it a key: of `+KEY=2 KEY=4`, which Hydra takes, the second alone is no override."""
    key = "trainer.limit_train_batches"
    assert merged([f"++{key}=2"], [f"{key}=3", f"{key}=4"]) == [f"++{key}=4"]
    assert merged([f"{key}=2"], [f"~{key}"]) == [f"~{key}"]
    assert compose("train", *merged([f"+{key}=2"], [f"{key}=4"])).trainer.limit_train_batches == 4


def test_experiments_of_ones_own_are_found_in_the_second_config_too(tmp_path):
    """`hydra.searchpath=` is no override of the job's; the config that is composed anew needs it all the same."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nname: mine\n")
    (tmp_path / "job.py").write_text(
        "import hydra\nfrom facelm.launch.paths import CONF_DIR\nfrom facelm.launch.resume import composed\n"
        "@hydra.main(version_base='1.3', config_path=str(CONF_DIR), config_name='train')\n"
        "def main(cfg):\n    print(composed(['experiment=mine', 'seed=7']).name)\n"
        "main()\n"
    )
    command = [sys.executable, "job.py", f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "experiment=mine"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["mine"], done.stderr[-2000:]


def test_the_two_experiments_of_the_cpu_recipe():
    def said(name):
        cfg = compose("train", f"experiment={name}")
        return cfg.name, cfg.crop.size, cfg.codec.sigma, cfg.trainer.max_epochs, cfg.optim.optimizer.lr, cfg.ema.decay

    assert said("hrnetv2_w18_cpu_128") == ("hrnetv2_w18_cpu_128", 128, 1.0, 60, 0.0015, 0.998)
    assert said("hrnetv2_w18_cpu") == ("hrnetv2_w18_cpu", 256, 1.5, 24, 0.0005, 0.99)


@pytest.mark.parametrize("typed", ["first=null", "first.trainer.max_epochs=60", "+first={crop: {size: 96}}", "~first"])
def test_two_trainings_in_one_command_are_refused_with_what_to_type(typed, capsys):
    with pytest.raises(SystemExit) as ended:
        refuse_first(["experiment=hrnetv2_w18_cpu", typed])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert typed in said
    assert "model.weights=" in said
    assert "Traceback" not in said


def test_other_keys_are_let_through():
    refuse_first(["experiment=first", "name=first", "model.first=1"])
