"""Names that people know from lightning-hydra-template: the same here, or refused with the one that is meant; tags."""

import re
import sys
from pathlib import Path

import pytest

from conftest import compose
from facelm.cli import main
from facelm.launch.config_check import check_tags
from facelm.launch.key_names import ELSEWHERE, did_you_mean, keys_of
from facelm.launch.paths import CONF_DIR
from facelm.launch.run_log import run_plan
from wandb_plan import plan, tracker

EVERY_KEY = {
    *keys_of(compose("train")),
    *keys_of(compose("evaluate")),
    *(folder.name for folder in CONF_DIR.iterdir() if folder.is_dir()),
    "hydra.run.dir",
}


@pytest.fixture
def refused(monkeypatch, tmp_path, capsys):
    """What a command says of keys that it does not know."""
    monkeypatch.setattr(sys, "argv", ["facelm"])
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 1
        return capsys.readouterr().err

    return run


class TestNames:
    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ("ckpt_path=x.ckpt", "resume=RUN"),
            ("+ckpt_path=x.ckpt", "resume=RUN"),
            ("hparams_search=mnist_optuna", "sweep="),
            ("paths.data_dir=/data", "data.root="),
            ("extras.print_config=true", "config.yaml"),
            ("train=false", "facelm evaluate"),
            ("test=true", "report"),
            ("model.optimizer.lr=0.1", "optim.optimizer"),
            ("optim.lr=0.1", "did you mean optim.optimizer.lr"),
            ("trainer.limit_val_batches=1", "type +trainer.limit_val_batches=..., an argument of lightning.Trainer"),
            ("trainer.limit_vall_batches=1", "did you mean"),
            ("trainer.limit_test_batches=1", "data.val_list=FILE"),
        ],
    )
    def test_one_that_is_another_here(self, refused, typed, meant):
        said = refused("train", typed)
        assert meant in said.replace(typed, "")
        assert "Traceback" not in said

    def test_in_an_evaluation_too(self, refused):
        assert "facelm evaluate checkpoint=RUN" in refused("evaluate", "ckpt_path=x.ckpt")

    @pytest.mark.parametrize("name", ["data", "model", "callbacks", "logger", "debug", "trainer", "experiment"])
    def test_one_that_is_the_same_names_what_there_is(self, refused, name):
        assert f"{name}/nothing_of_this_name" in refused("train", f"{name}=nothing_of_this_name")

    @pytest.mark.parametrize("key", ELSEWHERE)
    def test_what_is_said_exists_and_what_is_asked_for_does_not(self, key):
        assert key not in EVERY_KEY
        named = re.findall(r"([a-z_.]+)=", ELSEWHERE[key])
        assert set(named) <= EVERY_KEY
        assert ELSEWHERE[key] in did_you_mean(f"{key}.further", EVERY_KEY)

    @pytest.mark.parametrize(
        "name",
        sorted({key.partition(".")[0] for key in ELSEWHERE} | {"callbacks", "logger", "debug", "hydra"}),
    )
    def test_the_table_of_the_docs_has_it(self, name):
        page = (Path(__file__).parents[1] / "docs" / "running.md").read_text(encoding="utf-8")
        assert re.search(rf"`{name}\b", page[page.index("## Coming from lightning-hydra-template") :])


class TestTags:
    def test_are_the_run_s_for_every_logger(self, tmp_path, no_key):
        cfg = compose("train", "tags=[baseline,2024]", f"run_dir={tmp_path}")
        told = run_plan(cfg, tmp_path, "train", {})
        assert told.tags == ("baseline", "2024")
        assert told.config["tags"] == ["baseline", 2024]
        wandb = tracker(tags=["own"])
        wandb.start(plan(tmp_path, tags=told.tags, overrides=("tags=[baseline,2024]", "seed=1")))
        assert set(wandb._run.tags) == {"demo", "seed=1", "baseline", "2024", "own"}
        wandb.finish(0)

    @pytest.mark.parametrize("typed", ["tags=baseline", "tags=[[a]]"])
    def test_are_a_list_of_words(self, typed):
        with pytest.raises(ValueError, match="tags="):
            check_tags(compose("train", typed).tags)

    def test_may_be_none(self):
        check_tags(compose("train").tags)
        check_tags(compose("train", "tags=null").tags)

    def test_of_an_evaluation(self, tmp_path):
        cfg = compose("evaluate", "checkpoint=x", "tags=[again]")
        assert run_plan(cfg, tmp_path, "evaluate", {}).tags == ("again",)
