"""A pack gives the bits that its data set's tree and crop cache give, without the tree."""

import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import warm
from conftest import TINY, compose
from facelm.cli import main as facelm
from facelm.data.faces import data_fingerprint, name_hashes
from facelm.data.storage.pack import Pack, PackedCrops
from facelm.evaluate import evaluate
from facelm.files import write_whole
from facelm.launch.build import build_data
from facelm.models.loading import load_model
from facelm.train import train

GOLDEN = Path(__file__).parent / "golden"
CROP = ["crop.size=64", "data.cache_size=128", "data.num_workers=0", "data.batch_size=4"]


def module(*overrides, crop=CROP):
    data = build_data(compose("train", *crop, *overrides))
    data.setup()
    return data


def batches(data):
    return [batch for loader in (data.train_dataloader(), data.val_dataloader()) for batch in loader]


def assert_same(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=0, atol=0)


def flip_byte(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


@pytest.fixture(scope="module")
def packs(drawn_root, tmp_path_factory):
    """Of the drawn faces, as a raw and as a JPEG pack; the tree's name stands nowhere in them."""
    folder = tmp_path_factory.mktemp("packs")
    for kind in ("raw", "jpeg"):
        out = folder / f"{kind}.pack"
        assert facelm(["pack", str(drawn_root), *CROP, f"data.cache={kind}", "--out", str(out)]) == 0
        assert drawn_root.parent.name.encode() not in out.read_bytes()
    return folder


class TestTheSameBits:
    @pytest.mark.parametrize("kind", ["raw", "jpeg"])
    def test_batches(self, packs, drawn_root, tmp_path, kind):
        tree = module(f"data.root={drawn_root}", f"data.cache={kind}", f"data.cache_dir={tmp_path}")
        packed = module("data=packed", f"data.file={packs / kind}.pack")
        assert_same(batches(packed), batches(tree))
        for name in ("train_faces", "val_faces"):
            one, other = getattr(packed, name), getattr(tree, name)
            assert data_fingerprint(one) == data_fingerprint(other)
            assert name_hashes(one) == name_hashes(other)
        assert packed.val_name == tree.val_name == "full"

    def test_evaluated_faces(self, packs, drawn_root):
        tree, packed = module(f"data.root={drawn_root}", "data.cache=none"), module(
            "data=packed", f"data.file={packs / 'raw.pack'}"
        )  # fmt: skip
        (faces, labels), (ours, subsets) = tree.evaluation_faces(), packed.evaluation_faces()
        assert [face.name for face in ours] == [face.name for face in faces]
        assert subsets == labels
        assert_same(list(packed.faces_loader(ours)), list(tree.faces_loader(faces)))
        one, other = tree.originals(faces), packed.originals(ours)
        assert [one.content(i) for i in range(3)] == [other.content(i) for i in range(3)]

    @pytest.mark.filterwarnings("ignore:300W is incomplete")
    def test_what_is_held_out(self, drawn_root, tmp_path):
        """The same faces as of the tree, which has no test subset; a list names them too."""
        shutil.copytree(drawn_root, tmp_path / "tree")
        for name in ("ibug", "300W", "helen/testset", "lfpw/testset"):
            shutil.rmtree(tmp_path / "tree" / name, ignore_errors=True)
        assert facelm(["pack", str(tmp_path / "tree"), *CROP, "--out", str(tmp_path / "a.pack")]) == 0
        tree = module(f"data.root={tmp_path / 'tree'}", "data.cache=none")
        keys = ["data=packed", f"data.file={tmp_path / 'a.pack'}"]
        packed = module(*keys)
        names = [face.name for face in tree.val_faces]
        assert [face.name for face in packed.val_faces] == names
        write_whole(tmp_path / "list.txt", "\n".join(names))
        listed = module(*keys, f"data.val_list={tmp_path / 'list.txt'}")
        assert [face.name for face in listed.val_faces] == names

    def test_a_copy_sent_to_a_worker(self, packs):
        data = module("data=packed", f"data.file={packs / 'jpeg.pack'}")
        sent = pickle.loads(pickle.dumps(data._train_source))
        np.testing.assert_array_equal(sent.load(3)[0], data._train_source.load(3)[0])


@pytest.mark.filterwarnings("ignore:the warm-up")
def test_a_pack_that_was_replaced_is_not_mixed_with_the_one_in_use(packs, tmp_path):
    shutil.copy(packs / "raw.pack", path := tmp_path / "a.pack")
    sent = pickle.dumps(PackedCrops(Pack(path), "crop", [0, 1]))
    shutil.copy(packs / "jpeg.pack", tmp_path / "b.pack")
    os.replace(tmp_path / "b.pack", path)
    with pytest.raises(ValueError, match="was replaced while faces of it were in use"):
        pickle.loads(sent)


def test_trains_and_is_measured_without_the_tree(packs, drawn_root, tmp_path):
    """The report of the run itself, one made later on the pack alone, and the tree's."""
    shutil.copy(packs / "raw.pack", tmp_path / "faces.pack")
    run = tmp_path / "run"
    keys = [*TINY, *CROP, "data.batch_size=8", "trainer.max_epochs=1", f"run_dir={run}"]
    train(compose("train", "data=packed", *keys, f"data.file={tmp_path / 'faces.pack'}"))
    own = (run / "report" / "per_face.csv").read_text()
    model = load_model(run / "checkpoints" / "best.ckpt")
    tree = module(f"data.root={drawn_root}", "data.cache=none")
    evaluate(model, tree, torch.device("cpu"), tmp_path / "report")
    assert (tmp_path / "report" / "per_face.csv").read_text() == own
    words = [f"checkpoint={run}", "device=cpu", f"report_dir={tmp_path / 'b'}"]
    done = warm.run(["-m", "facelm.evaluate", *words], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b" / "per_face.csv").read_text() == own


class TestRefused:
    def keys(self, path):
        return "data=packed", f"data.file={path}"

    def test_what_is_no_pack(self, tmp_path, packs):
        (tmp_path / "a.pack").write_bytes(b"PK\3\4 or anything else")
        with pytest.raises(ValueError, match=r"a.pack' is no pack of faces. facelm pack DATA --out FILE makes one"):
            module(*self.keys(tmp_path / "a.pack"))
        with pytest.raises(ValueError, match="data.file= is missing"):
            module("data=packed")
        with pytest.raises(FileNotFoundError):
            module(*self.keys(tmp_path / "none.pack"))

    @pytest.mark.parametrize("size", [30, 70, 5000, -1])
    def test_a_cut_one(self, tmp_path, packs, size):
        shutil.copy(packs / "jpeg.pack", tmp_path / "a.pack")
        os.truncate(tmp_path / "a.pack", size if size > 0 else (tmp_path / "a.pack").stat().st_size - 1)
        with pytest.raises(ValueError, match=r"a.pack' (holds .* bytes of .*: it was cut|was written by another)"):
            module(*self.keys(tmp_path / "a.pack"))

    def test_a_damaged_index(self, tmp_path, packs):
        shutil.copy(packs / "jpeg.pack", tmp_path / "a.pack")
        flip_byte(tmp_path / "a.pack", -3000)
        with pytest.raises(ValueError, match=r"a.pack' is damaged"):
            module(*self.keys(tmp_path / "a.pack"))

    def test_damaged_faces_are_named(self, tmp_path, packs, capsys, caplog):
        """When they are read; by info --verify; and by data.on_error=skip, which goes on without them."""
        path = Path(shutil.copy(packs / "jpeg.pack", tmp_path / "a.pack"))
        train_face = Pack(path).faces[2].name
        flip_byte(path, int(Pack(path)._rows["surroundings"][1]["offset"][2]) + 300)
        data = module(*self.keys(path))
        with pytest.raises(ValueError, match=f"{train_face} cannot be read .*data.on_error=skip"):
            batches(data)
        assert facelm(["info", str(path), "--verify"]) == 1
        assert f"damaged: {train_face}\n1 of 38 faces are damaged" in capsys.readouterr().out
        skipped = module(*self.keys(path), "data.on_error=skip")
        assert len(skipped.train_faces) == 23
        assert train_face in caplog.text
        batches(skipped)

    def test_other_points(self, packs):
        with pytest.raises(ValueError, match="faces of the scheme ibug68, 68 points, and the run has wflw98"):
            module(*self.keys(packs / "raw.pack"), "landmarks=wflw98")

    def test_another_origin(self, packs):
        with pytest.raises(ValueError, match="data.pixel_origin=1, and here it is 0"):
            module(*self.keys(packs / "raw.pack"), "data.pixel_origin=0")

    def test_another_crop(self, packs):
        with pytest.raises(ValueError, match="holds crops of 64 pixels .* facelm pack DATA crop.size=96"):
            module(*self.keys(packs / "raw.pack"), "crop.size=96")

    def test_a_wider_augmentation(self, packs):
        with pytest.raises(ValueError, match="this augmentation reaches"):
            module(*self.keys(packs / "raw.pack"), "augment.geometry.zoom=0.6")

    def test_a_cache_of_a_pack(self, packs):
        with pytest.raises(ValueError, match="a pack holds its crops"):
            module(*self.keys(packs / "raw.pack"), "data.cache=raw")

    def test_a_pack_of_a_pack(self, packs, tmp_path, capsys):
        keys = self.keys(packs / "raw.pack")
        assert facelm(["pack", *keys, "--out", str(tmp_path / "b.pack")]) == 1
        assert "is a pack already" in capsys.readouterr().err

    def test_a_file_that_is_there(self, packs, drawn_root, capsys):
        assert facelm(["pack", str(drawn_root), "--out", str(packs / "raw.pack")]) == 1
        assert "--overwrite" in capsys.readouterr().err


class TestInfo:
    def test_says_what_is_in_it(self, packs, drawn_root, tmp_path, capsys):
        scheme = tmp_path / "scheme.yaml"
        assert facelm(["info", str(packs / "jpeg.pack"), "--scheme", str(scheme)]) == 0
        said = capsys.readouterr().out
        tree = module(f"data.root={drawn_root}", "data.cache=none")
        assert f"24 faces of 24 photographs or clips, fingerprint {data_fingerprint(tree.train_faces)}" in said
        assert "JPEG of quality 95" in said
        module("data=packed", f"data.file={packs / 'raw.pack'}", "landmarks=file", f"landmarks.file={scheme}")

    def test_verify_is_about_packs(self, capsys):
        assert facelm(["info", "hrnetv2_w18", "--verify"]) == 1
        assert "is none" in capsys.readouterr().err


def test_a_pack_of_version_1():
    """Four drawn faces, two of which train, in JPEG."""
    pack = Pack(GOLDEN / "pack_1.pack")
    assert pack.facts.splits == ("train", "common", "challenge")
    assert data_fingerprint(pack.faces[pack.numbers("train")]) == "bf8a18dd6238"
    assert pack.damaged() == []
    picture, image_from_stored = pack.load("surroundings", 1)
    assert picture.std() > 20
    assert image_from_stored.shape == (3, 3)


CHILD = """
import sys, time
import facelm.data.faces as faces
from facelm.cli import main
read = faces.read_image
faces.read_image = lambda *how: (time.sleep(0.2), read(*how))[1]
main(sys.argv[1:])
"""


def test_killed_while_it_is_written(drawn_root, tmp_path):
    """What was there is whole; what was begun is removed by the next that writes there."""
    out = tmp_path / "a.pack"
    out.write_bytes(b"what was there")
    command = ["pack", str(drawn_root), *CROP, "--out", str(out), "--overwrite"]
    process = subprocess.Popen([sys.executable, "-c", CHILD, *command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob(".*.tmp.*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert out.read_bytes() == b"what was there"
    assert len(list(tmp_path.iterdir())) == 2
    assert facelm(command) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.pack"]
    assert len(Pack(out).faces) == 38


@pytest.mark.slow
def test_the_commands_of_the_docs(drawn_root, tmp_path):
    """As docs/data.md has them, but for the data and a tiny network; without the tree; then the run is measured."""
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    block = re.search(r"## One file instead of a tree.*?```\n(.*?)```", page, re.DOTALL)[1]
    (tmp_path / "data").mkdir()
    shutil.copytree(drawn_root, tmp_path / "data" / "300w")
    small = ["crop.size=64", "data.cache_size=128"]
    more = [small, [], [*TINY, *small, "trainer.max_epochs=1", "data.stage_to=node", "data.num_workers=2"]]
    for command, words in zip(block.strip().splitlines(), more, strict=True):
        program, *said = [*shlex.split(command), *words]
        done = warm.run(said if program == "python" else ["-m", "facelm.cli", *said], cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        if "info" in said:
            shutil.rmtree(tmp_path / "data")
    (run,) = (tmp_path / "outputs" / "hrnetv2_w18").iterdir()
    assert len(list((tmp_path / "node").glob("*.pack"))) == 1
    words = [f"checkpoint={run}", "device=cpu", "report_dir=again"]
    done = warm.run(["-m", "facelm.evaluate", *words], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "again" / "per_face.csv").read_text() == (run / "report" / "per_face.csv").read_text()
