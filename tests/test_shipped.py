"""The weights that come with the package: whole, small, loaded without a network, and of use for faces."""

from __future__ import annotations

import csv
import re
import shlex
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np

from conftest import compose
from facelm.data.synthetic.dataset import draw_face
from facelm.evaluation.metrics import mean_shape, mean_shape_in_box
from facelm.geometry.boxes import box_from_landmarks
from facelm.geometry.landmarks import interocular
from facelm.models.cards import read_card
from facelm.models.download import SHIPPED, local_file, shipped_names
from facelm.predict import Predictor

ROOT = Path(__file__).resolve().parents[1]
NAME = "hrnetv2_w18"
KEPT, TWIN = "hrnetv2_w18_2019faces", "hrnetv2_w18_cpu_1818"
"""Weights that shipped before, and those of the same recipe and seed that have not seen `dev`."""


class TestShipped:
    def test_small_enough_for_a_repository(self):
        assert (SHIPPED / f"{NAME}.safetensors").stat().st_size < 21e6

    def test_the_card_says_all(self):
        card = card_of(NAME)
        assert all(0 < nme < 10 for nme in card.nme.values())
        assert any(subset.startswith("dev") for subset in card.nme)
        assert "300W" in card.data
        assert "research only" in card.licence
        assert re.fullmatch(r"[0-9a-f]{40}", card.commit)

    def test_its_number_is_the_same_wherever_it_stands(self):
        """It did not learn from `dev`, so the number is its own: card, 300w.csv, README, docs."""
        card = card_of(NAME)
        assert "data.val_list=dev.txt" in card.recipe
        assert card.spec.known_error  # on the same faces, each photograph's by a fit to the others
        (number,) = (f"{nme:.2f}" for subset, nme in card.nme.items() if subset.startswith("dev"))
        assert measured("dev")[card.sha256[:12]] == number
        for document in ("README.md", "CHANGELOG.md", "docs/models.md"):
            said = [line for line in (ROOT / document).read_text(encoding="utf-8").splitlines() if f"`{NAME}`" in line]
            assert any(number in line for line in said), document

    def test_the_command_in_the_card_trains_such_a_network(self):
        """Two trainings, one after the other, whose last config composes to what the weights are for."""
        card = card_of(NAME)
        first, last = (compose("train", *command) for command in training_commands(NAME))
        assert first.model.weights is None
        assert first.crop.size < last.crop.size
        cfg = last
        assert (cfg.model.name, cfg.crop.size, cfg.crop.scale) == (
            card.spec.architecture,
            card.spec.crop_size,
            card.spec.crop_scale,
        )
        assert (cfg.codec.name, cfg.codec.sigma) == (card.spec.codec["name"], card.spec.codec["sigma"])
        assert (cfg.inference.flip, cfg.data.pixel_origin) == (card.spec.flip, card.spec.pixel_origin)
        assert cfg.inference.annotation_shift == card.spec.annotation_shift
        assert cfg.model.weights.endswith("last.ckpt")

    def test_finds_landmarks_without_a_network(self, monkeypatch):
        """On drawn faces, which it has never seen, far better than the mean shape."""
        monkeypatch.setattr(socket, "socket", None)
        predictor = Predictor.load(NAME, device="cpu")
        images, faces = zip(*(draw_face(np.random.default_rng(seed)) for seed in range(8)), strict=True)
        truth, boxes = np.stack(faces), [box_from_landmarks(face) for face in faces]
        predictions = predictor(list(images), [box.xyxy[None] for box in boxes], convention="square")
        found = np.stack([faces[0].landmarks_image for faces in predictions])
        place = np.array([box.center for box in boxes]), np.array([box.side for box in boxes])
        mean = mean_shape_in_box(mean_shape(truth, *place), *place)
        assert nme(found, truth) < nme(mean, truth) / 2


class TestKept:
    """The weights that shipped before stay in a checkout, with the numbers that were measured with them."""

    def test_are_known_by_name(self):
        assert Predictor.load(KEPT, device="cpu").spec == card_of(KEPT).spec
        assert KEPT not in shipped_names()

    def test_their_number_on_dev_is_their_twins(self):
        """They learned from every face at hand, so they have no number of their own."""
        card, twin = card_of(KEPT), card_of(TWIN)
        ((_, nme),) = ((of, nme) for of, nme in card.nme.items() if "twin" in of)
        assert list(twin.nme.values()) == [nme]
        assert replace(card.spec, expected_error=None) == twin.spec
        assert (measured("dev")[card.sha256[:12]], measured("dev")[twin.sha256[:12]]) == ("", f"{nme:.2f}")

    def test_what_was_measured_elsewhere_is_the_same_everywhere(self):
        """The maintainers' number on 300W's common subset: card, 300w.csv, README, docs."""
        number = f"{card_of(KEPT).nme['common']:.2f}"
        assert measured("common")[card_of(KEPT).sha256[:12]] == number
        for document in ("README.md", "docs/models.md", "CHANGELOG.md"):
            said = [line for line in (ROOT / document).read_text(encoding="utf-8").splitlines() if f"`{KEPT}`" in line]
            assert any(number in line for line in said), document

    def test_the_twin_was_trained_alike(self):
        """But for the faces, and for what says which faces."""
        ours, theirs = (
            [
                [word for word in command if not re.match(r"data\.(\w+_list|hold_out)=", word)]
                for command in training_commands(name)
            ]
            for name in (KEPT, TWIN)
        )
        assert ours == theirs


def card_of(name):
    return read_card(local_file(name))


def measured(subset):
    """The column `subset` of results/300w.csv, by the first digits of the weights' sha256."""
    with (ROOT / "results" / "300w.csv").open(encoding="utf-8") as file:
        return {row["weights"]: row[subset] for row in csv.DictReader(file)}


def training_commands(name):
    """The words after each `python -m facelm.train` in a card's recipe."""
    return [shlex.split(one) for one in re.findall(r"python -m facelm\.train ([^;,\n]+)", card_of(name).recipe)]


def nme(predicted, truth):
    return (np.linalg.norm(predicted - truth, axis=-1).mean(axis=1) / interocular(truth)).mean()


def test_nothing_else_is_shipped():
    assert shipped_names() == [NAME]
    assert {path.suffix for path in SHIPPED.iterdir()} == {".safetensors", ".json", ".md"}  # .md: their licence
