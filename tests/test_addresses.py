"""Keys in addresses stay with whoever typed them: no file of a run holds one."""

import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

import warm
from conftest import TINY, compose
from facelm.addresses import public, shareable, without_keys
from facelm.launch.jobs import Job
from facelm.launch.run_log import run_facts, run_plan
from facelm.loggers.tracker import RunPlan
from facelm.train import train
from tiny_networks import tiny

KEYED = "https://me:t0k3n@host.invalid/w-eea53406.pth?X-Amz-Signature=s3cr3t&b=1"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (KEYED, "https://host.invalid/w-eea53406.pth"),
        (f"model.weights='{KEYED}'", "model.weights='https://host.invalid/w-eea53406.pth'"),
        ("weights: https://h:80/b.ckpt?x=y#z\nname: a", "weights: https://h:80/b.ckpt\nname: a"),
        (r"checkpoint=https\://h/x?t=1", r"checkpoint=https\://h/x"),
        ("https://h/x;t=1", "https://h/x"),
        ("https://u:p@q@h/x", "https://h/x"),
        ("https://u:p%40q@h/x", "https://h/x"),
        ("hf://org/repo/file.pth", "hf://org/repo/file.pth"),
        ("data.root='/a?b#c'", "data.root='/a?b#c'"),
    ],
)
def test_public(said, told):
    assert public(said) == told


def test_within_plain_values():
    assert without_keys({"a": [KEYED, 1, None], "b": {"c": (KEYED,)}}) == {
        "a": [public(KEYED), 1, None],
        "b": {"c": (public(KEYED),)},
    }


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("/home/me/300w/", ".../300w"),
        ("/home/me/a=b,[x] {y}/run", ".../run"),
        (r"C:\Users\me\300w", ".../300w"),
        ("~me/300w", ".../300w"),
        ("file:///home/me/w.pth", ".../w.pth"),
        ("data.root='/home/me/a b, c'", "data.root='.../a b, c'"),
        (r"run_dir='/home/it\'s/run'", "run_dir='.../run'"),
        ("x=[/home/me/a.txt,b/c.txt]", "x=[.../a.txt,b/c.txt]"),
        (KEYED, public(KEYED)),
        ("data/300w", "data/300w"),
        ("~/300w", "~/300w"),
        ("loss=adaptive_wing", "loss=adaptive_wing"),
    ],
)
def test_shareable_cuts_what_says_whose_machine_it_was(said, told):
    assert shareable(said) == told
    assert shareable({"a": [said, 1]}) == {"a": [told, 1]}


def test_no_absolute_path_in_what_a_run_hands_on(trained_run, drawn_root):
    """Neither the data's nor the run's: in checkpoints, facts, or the report."""
    texts = [trained_run / "facts.json", *(trained_run / "report").glob("*.[jm]*")]
    for path in (*(trained_run / "checkpoints").glob("*.ckpt"), *texts):
        content = path.read_bytes()
        assert not [one for one in (drawn_root, trained_run) if str(one).encode() in content], path


def test_what_a_tracker_is_told(tmp_path):
    cfg = compose("train", f"model.weights='{KEYED}'", f"run_dir={tmp_path}", f"report_dir={tmp_path}")
    plan = run_plan(cfg, tmp_path, "train", {})
    assert plan.config["model"]["weights"] == public(KEYED)
    assert "s3cr3t" not in str(plan)
    assert str(tmp_path) not in str(plan.config)
    short = RunPlan(folder=tmp_path, experiment="x", overrides=(f"model.weights={public(KEYED)}",)).short_overrides()
    assert short == ["model.weights=w-eea53406.pth"]


@pytest.mark.parametrize("program", ["train", "evaluate"])
def test_a_sweep_does_not_say_one(tmp_path, program):
    """Hydra itself logs the overrides of each job."""
    key = "model.weights" if program == "train" else "checkpoint"
    command = ["-m", f"facelm.{program}", "-m", f"{key}='{KEYED}'", f"hydra.sweep.dir={tmp_path}"]
    command += [f"data.root={tmp_path / 'none'}"]
    done = warm.run(command)
    assert done.returncode == 1
    assert f"{key}='{public(KEYED)}'" in done.stdout
    assert not [said for said in ("s3cr3t", "t0k3n") if said in done.stdout + done.stderr]


@pytest.mark.parametrize("program", ["train", "evaluate"])
def test_no_file_of_a_run_holds_one(tmp_path, program):
    """Hydra's own records, the log, result.json; the download itself fails, as the host does not exist."""
    keyed = f"model.weights='{KEYED}'" if program == "train" else f"checkpoint='{KEYED}'"
    overrides = [*TINY[:1], *TINY[2:]] if program == "train" else []
    data = ["data=drawn", f"data.root={tmp_path / 'data'}", "data.counts={train: 6, common: 2, challenge: 2, test: 2}"]
    command = ["-m", f"facelm.{program}", *overrides, *data, keyed, f"hydra.run.dir={tmp_path / 'run'}"]
    done = warm.run(command)
    assert done.returncode == 1
    assert "could not download 'https://host.invalid/w-eea53406.pth'" in done.stderr
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name in ("overrides.yaml", "result.json") for file in files)
    holding = [file.name for file in files if b"s3cr3t" in file.read_bytes() or b"t0k3n" in file.read_bytes()]
    assert not holding
    assert "s3cr3t" not in done.stdout + done.stderr
    assert "t0k3n" not in done.stdout + done.stderr


def test_none_is_in_what_a_training_leaves(trained_run, drawn_root, tmp_path, monkeypatch, caplog):
    """Weights that come from such an address: config, facts, checkpoints, metrics, report and log."""
    monkeypatch.setenv("FACELM_CACHE", str(tmp_path / "cache"))
    handler = partial(SimpleHTTPRequestHandler, directory=trained_run / "checkpoints")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    overrides = ["data=w300", "codec=subpixel", f"data.root={drawn_root}", "trainer.max_epochs=1"]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{server.server_address[1]}/best.ckpt"
        keyed = f"model.weights='http://me:t0k3n@{place}?X-Amz-Signature=s3cr3t#fr4g'"
        train(compose("train", *TINY, *overrides, f"run_dir={tmp_path / 'run'}", keyed))
        server.shutdown()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert place.encode() in (tmp_path / "run" / "config.yaml").read_bytes()
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt") in files
    keys = ("s3cr3t", "t0k3n", "fr4g")
    assert not [(file.name, key) for file in files for key in keys if key.encode() in file.read_bytes()]
    assert not [key for key in keys if key in caplog.text]


def test_no_folder_of_this_machine_is_in_a_run_s_facts(monkeypatch):
    """They go to trackers: where the data are is in the run folder's own files alone."""
    monkeypatch.setattr(Job, "current", lambda: Job(("data.root=/home/me/secret project/faces", "seed=2")))
    data = SimpleNamespace(train_faces=[], val_faces=[], val_name="val", cache="none")
    facts = run_facts(compose("train", *TINY), data, tiny())
    assert "seed=2" in facts["overrides"]
    assert "secret project" not in json.dumps(facts)
