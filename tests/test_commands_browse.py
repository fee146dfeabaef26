import cv2
import lightning as L
import numpy as np
import pytest
import torch

from conftest import TINY
from facelm.cli import main
from facelm.codec import build_codec
from facelm.commands.browse import first_items
from facelm.commands.contact_sheet import contact_sheet, overlay_heat, training_tile
from facelm.geometry.landmarks import IBUG68, get_scheme
from facelm.launch.build import build_data, compose_config

DRAWN_COUNTS = "data.counts={train:24,common:6,challenge:4,test:4}"  # as drawn_root has them, or it is drawn anew


class Watcher(L.LightningModule):
    """A training that keeps its batches and learns nothing."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.batches = []

    def training_step(self, batch):
        self.batches.append({key: value.clone() for key, value in batch.items()})

    def configure_optimizers(self):
        return None


@pytest.fixture
def overrides(drawn_root):
    return ["experiment=demo", *TINY, DRAWN_COUNTS, f"data.root={drawn_root}"]


def browse(*arguments) -> int:
    return main(["browse", *map(str, arguments)])


def sheet(path):
    return cv2.imread(str(path))


class TestWhatIsShown:
    def test_it_is_what_training_sees(self, overrides):
        """The first batch of the second epoch of a training, pixel for pixel."""
        cfg = compose_config([*overrides, "augment=strong"])
        network = Watcher()
        trainer = L.Trainer(
            max_epochs=2,
            accelerator="cpu",
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(network, datamodule=build_data(cfg))
        data = build_data(cfg)
        data.setup()
        items, names = first_items(data, 1, 8)
        batches = -(-24 // 8)
        assert len(network.batches) == 2 * batches
        for key in ("image", "landmarks_crop", "index"):
            shown = torch.stack([torch.as_tensor(item[key]) for item in items])
            assert torch.equal(shown, network.batches[batches][key])
        assert names == [data.train_faces[i].name for i in network.batches[batches]["index"].tolist()]

    def test_epochs_differ_and_repeat(self, overrides, tmp_path):
        for name, epoch in [("a", 0), ("b", 1), ("c", 0)]:
            assert browse(*overrides, "--out", tmp_path / f"{name}.png", "--epoch", epoch, "--count", 4) == 0
        first, other, again = (sheet(tmp_path / f"{name}.png") for name in "abc")
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_overrides_may_stand_anywhere(self, overrides, tmp_path, capsys):
        arguments = ["augment=none", "--out", tmp_path / "a.png", overrides[0], "--count", 5, *overrides[1:]]
        assert browse(*arguments) == 0
        assert "5 of 24 training faces, epoch 0, demo" in capsys.readouterr().out

    def test_more_than_there_are(self, overrides, tmp_path, capsys):
        assert browse(*overrides, "--out", tmp_path / "a.png", "--count", 99, "--size", 64, "--columns", 5) == 0
        assert "24 of 24" in capsys.readouterr().out
        assert sheet(tmp_path / "a.png").shape == (6 + 5 * (64 + 12 + 6), 6 + 5 * (64 + 6), 3)

    def test_heatmaps(self, overrides, tmp_path):
        assert browse(*overrides, "--out", tmp_path / "a.png", "--heatmaps", "--count", 2) == 0
        assert browse(*overrides, "--out", tmp_path / "b.png", "--count", 2) == 0
        assert not np.array_equal(sheet(tmp_path / "a.png"), sheet(tmp_path / "b.png"))


class TestTiles:
    @pytest.fixture
    def item(self):
        landmarks = torch.full((68, 2), 5.0)
        landmarks[36:42] = torch.tensor([30.0, 20.0])
        return {"image": torch.zeros(64, 64, 3, dtype=torch.uint8), "landmarks_crop": landmarks}

    def test_landmarks_lie_where_their_pixels_are(self, item):
        """Magnified by 4, the middle of crop pixel 30 is 1.5 beyond pixel 120."""
        tile = training_tile(item, IBUG68, 256).astype(float)
        cyan = (tile[..., 2] > tile[..., 0] + 40) * tile[..., 2]
        rows, columns = np.indices(cyan.shape)
        assert (cyan * columns).sum() / cyan.sum() == pytest.approx(30 * 4 + 1.5, abs=0.3)
        assert (cyan * rows).sum() / cyan.sum() == pytest.approx(20 * 4 + 1.5, abs=0.3)

    def test_the_right_eye_has_a_colour_of_its_own(self, item):
        tile = training_tile(item, IBUG68, 256)
        assert tile[22, 22, 0] > tile[22, 22, 2], "amber"
        assert tile[82, 122, 2] > tile[82, 122, 0], "cyan"

    def test_a_scheme_that_does_not_say_what_an_eye_is(self, item):
        corner = get_scheme({"name": "four", "points": 4, "mirror": [[0, 1]], "outer_eyes": [0, 1]})
        nothing = get_scheme({"name": "four", "points": 4, "normaliser": "box"})
        item["landmarks_crop"] = item["landmarks_crop"][[36, 0, 0, 0]]
        for scheme, first, second in ((corner, 0, 2), (nothing, 2, 0)):
            tile = training_tile(item, scheme, 256)
            assert tile[82, 122, 2 - first] > tile[82, 122, 2 - second]

    def test_heat_lies_on_the_landmark(self, item):
        codec = build_codec({"name": "subpixel", "sigma": 1.5}, 64)
        item["landmarks_crop"][item["landmarks_crop"][:, 0] == 5] = -100
        tile = training_tile(item, IBUG68, 256, codec).astype(float).sum(axis=-1)
        rows, columns = np.indices(tile.shape)
        assert (tile * columns).sum() / tile.sum() == pytest.approx(30 * 4 + 1.5, abs=0.5)
        assert (tile * rows).sum() / tile.sum() == pytest.approx(20 * 4 + 1.5, abs=0.5)

    def test_without_heat_the_picture_is_darker_and_no_more(self):
        image = np.full((16, 16, 3), 200, np.uint8)
        assert (overlay_heat(image, np.zeros((4, 4), np.float32), 4, 0) == 140).all()

    def test_titles_of_any_length_and_script(self):
        tile = np.full((64, 64, 3), 99, np.uint8)
        picture = contact_sheet([tile] * 3, ["helen/trainset/" + "1" * 80, "", "лицо"], columns=2)
        assert (picture[6:70, 6:70] == 99).all()
        with pytest.raises(ValueError, match="no faces"):
            contact_sheet([], [], 6)
        one, other, undecodable = (contact_sheet([tile], [f"B{u}ro"], 1)[70:] for u in ("ü", "?", "\udcfc"))
        assert (one != other).any()
        assert (undecodable == other).all()


class TestMistakes:
    def test_what_cannot_be(self, overrides, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        out = ["--out", tmp_path / "a.png"]
        for arguments, message in [
            (["experiment=best", *out], "'experiment/best'"),
            ([*overrides, "crop.sizes=64", *out], "crop.sizes"),
            ([*overrides, "crop.size", *out], "crop.size"),
            ([*overrides, "crop.size=50", *out], "multiple of 32"),
            (["experiment=hrnetv2_w18", f"data.root={tmp_path}/absent", *out], "no 300W images under root="),
            ([*overrides, "--count", 0, *out], "--count 0 is too small"),
            ([*overrides, "--out", tmp_path / "a.gif"], "the sheet is a .png"),
            ([*overrides, "--out", tmp_path / "file" / "a.png"], "cannot write to the folder"),
        ]:
            assert browse(*arguments) == 1, message
            assert message in capsys.readouterr().err
        assert not (tmp_path / "a.png").exists()

    def test_unknown_options_stay_errors(self, overrides, capsys):
        with pytest.raises(SystemExit) as exit_:
            browse(*overrides, "--out", "a.png", "--speed")
        assert exit_.value.code == 2
        assert "unrecognized arguments: --speed" in capsys.readouterr().err
