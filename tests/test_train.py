import csv
import json

import pytest
import torch
from omegaconf import OmegaConf

import warm
from conftest import TINY, compose
from facelm.data.synthetic.dataset import draw_dataset
from facelm.evaluation.metrics import nme, per_face_error, point_distances
from facelm.evaluation.predictions import predict_faces
from facelm.geometry.landmarks import interocular
from facelm.launch.build import framed_data
from facelm.models.loading import load_model
from facelm.train import train


def run_train(*overrides):
    return train(compose("train", *TINY, *overrides))


class TestRunFolder:
    def test_what_a_run_leaves(self, trained_run):
        names = {str(p.relative_to(trained_run)) for p in trained_run.rglob("*") if p.is_file()}
        assert {
            "config.yaml",
            "metrics.csv",
            "checkpoints/best.ckpt",
            "checkpoints/last.ckpt",
            "report/summary.json",
            "report/per_face.csv",
            "report/table.md",
            "report/ced.png",
            "report/regions.png",
            "report/worst.png",
        } <= names

    def test_metrics(self, trained_run):
        rows = list(csv.DictReader((trained_run / "metrics.csv").open()))
        assert sum(bool(row["val/nme"]) for row in rows) == 2
        assert any(row["train/loss"] for row in rows)

    def test_checkpoints_hold_plain_values_only(self, trained_run):
        for name in ("best", "last"):
            content = torch.load(trained_run / "checkpoints" / f"{name}.ckpt", weights_only=True)
            assert content["facelm"]["spec"]["architecture"] == "hrnetv2_tiny"
            assert content["facelm"]["config"]["crop"]["size"] == 64

    def test_the_report_has_every_subset_and_the_mean_shape(self, trained_run):
        summary = json.loads((trained_run / "report" / "summary.json").read_text())
        assert list(summary["subsets"]) == ["common", "challenge", "full", "test"]
        assert [row["n"] for row in summary["subsets"].values()] == [6, 4, 10, 4]
        assert summary["mean_shape"]["common"]["nme"] > 10

    def test_validation_and_report_agree(self, trained_run):
        rows = csv.DictReader((trained_run / "metrics.csv").open())
        best = min(float(row["val/nme"]) for row in rows if row["val/nme"])
        summary = json.loads((trained_run / "report" / "summary.json").read_text())
        assert summary["subsets"]["full"]["nme"] == pytest.approx(best, abs=0.02)

    def test_every_validation_sees_the_weights_of_its_own_epoch(self, trained_run, drawn_root):
        """The fast form that validates holds a copy of the weights: last.ckpt's NME is that of the last row."""
        model = load_model(trained_run / "checkpoints" / "last.ckpt")
        data = framed_data(OmegaConf.create({**model.record["data"], "root": str(drawn_root)}), model.spec)
        faces = [f for f, label in zip(*data.evaluation_faces(), strict=True) if label != "test"]
        found = predict_faces(model.net, model.spec, data.faces_loader(faces), torch.device("cpu"))
        scheme = model.spec.landmark_scheme()
        error = nme(per_face_error(point_distances(found.predicted, found.target), interocular(found.target, scheme)))
        rows = [row for row in csv.DictReader((trained_run / "metrics.csv").open()) if row["val/nme"]]
        assert float(rows[-1]["val/nme"]) == pytest.approx(100 * float(error), rel=1e-4)
        assert rows[0]["val/nme"] != rows[-1]["val/nme"]


class TestWithoutValidation:
    def test_every_face_trains_and_the_last_checkpoint_is_the_result(self, tmp_path, capfd):
        root = draw_dataset(tmp_path / "faces", counts={"train": 8}, processes=1)
        overrides = [f"data.root={root}", "data.hold_out=0", "trainer.max_epochs=1", "ema.decay=0.9"]
        assert run_train(*overrides, f"run_dir={tmp_path / 'run'}") is None
        assert load_model(tmp_path / "run").path.name == "last.ckpt"
        assert not (tmp_path / "run" / "report").exists()
        assert "monitor" not in capfd.readouterr().err

    @pytest.mark.parametrize("share", ["-0.1", "1"])
    def test_the_share_has_bounds(self, share, tmp_path):
        with pytest.raises(ValueError, match="is a share of the training faces: 0 or more, below 1"):
            run_train(f"data.hold_out={share}", f"run_dir={tmp_path}")


class TestLearning:
    def test_overfits_a_few_drawn_faces(self, drawn_root, tmp_path):
        faces = tmp_path / "few.txt"
        faces.write_text(
            "\n".join(
                p.relative_to(drawn_root).with_suffix("").as_posix()
                for p in sorted((drawn_root / "helen/trainset").glob("*.pts"))[:8]
            )
        )
        overrides = [f"data.root={drawn_root}", f"run_dir={tmp_path}", f"data.train_list={faces}"]
        overrides += ["augment=none", "codec=subpixel", "optim=adamw_cosine", "optim.optimizer.lr=0.01"]
        overrides += ["trainer.max_epochs=60", "+trainer.check_val_every_n_epoch=60", "model.init=kaiming"]
        overrides += ["trainer.log_every_n_steps=1"]
        run_train(*overrides)
        losses = [
            float(row["train/loss"]) for row in csv.DictReader((tmp_path / "metrics.csv").open()) if row["train/loss"]
        ]
        assert losses[-1] < 0.35 * losses[0]

    def test_the_same_seed_gives_the_same_run(self, drawn_root, tmp_path):
        scores = [
            run_train(f"data.root={drawn_root}", f"run_dir={tmp_path / str(i)}", "trainer.max_epochs=1")
            for i in range(2)
        ]
        assert scores[0] == scores[1]


class TestWarmup:
    def test_longer_than_training_is_said(self, drawn_root, tmp_path):
        with pytest.warns(UserWarning, match=r"warm-up \(500 iterations\) is longer than the training \(3\)"):
            run_train(f"data.root={drawn_root}", f"run_dir={tmp_path}", "trainer.max_epochs=1")


class TestMistakes:
    @pytest.mark.parametrize(
        ("override", "error", "message"),
        [
            ("trainer.devices=99", ValueError, r"trainer.devices=99, but this machine has"),
            ("trainer.devices=two", ValueError, "number of devices or auto, got 'two'"),
            ("trainer.accelerator=gpu", ValueError, "torch sees no GPU"),
            ("crop.size=100", ValueError, "multiple of 32"),
            ("model.name=vgg", ValueError, "no architecture 'vgg'"),
            ("data.root=/nowhere", FileNotFoundError, "no 300W images under root='/nowhere'.*experiment=demo"),
            ("resume=/nowhere", FileNotFoundError, "neither a checkpoint nor a run folder"),
            ("ema.decay=1.5", ValueError, "ema.decay lies between 0 and 1"),
            ("trainer.precision=bf16-true", ValueError, "rounds landmarks too.*bf16-mixed"),
            ("+data.foo=1", ValueError, "FaceDataModule.*unexpected keyword argument 'foo'"),
            ("data.eval_batch_size=0", ValueError, "data.eval_batch_size=0: a batch holds at least one face"),
        ],
    )
    def test_messages(self, drawn_root, tmp_path, override, error, message):
        if override == "trainer.accelerator=gpu" and torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        overrides = [f"run_dir={tmp_path}", f"data.root={drawn_root}", override]
        with pytest.raises(error, match=f"(?s){message}"):
            run_train(*overrides)

    def test_val_faces_must_not_be_trained_on(self, drawn_root, tmp_path):
        faces = tmp_path / "faces.txt"
        faces.write_text(next((drawn_root / "afw").glob("*.pts")).relative_to(drawn_root).with_suffix("").as_posix())
        with pytest.raises(ValueError, match="share 1 faces"):
            run_train(
                f"data.root={drawn_root}", f"run_dir={tmp_path}", f"data.train_list={faces}", f"data.val_list={faces}"
            )

    def test_a_face_must_be_left_to_train_on(self, drawn_root, tmp_path):
        faces = [*drawn_root.glob("afw/*.pts"), *drawn_root.glob("*/trainset/*.pts")]
        names = [path.relative_to(drawn_root).with_suffix("").as_posix() for path in faces]
        (tmp_path / "all.txt").write_text("\n".join(names))
        with pytest.raises(ValueError, match=f"no face is left to train on: all {len(names)} validate"):
            run_train(f"data.root={drawn_root}", f"run_dir={tmp_path}", f"data.val_list={tmp_path / 'all.txt'}")

    def test_unknown_augmentation_arguments_are_errors(self, drawn_root, tmp_path):
        augment = "augment.transforms=[{_target_: albumentations.GaussianBlur, blur: 3}]"
        with pytest.raises(ValueError, match="GaussianBlur.*not valid"):
            run_train(f"data.root={drawn_root}", f"run_dir={tmp_path}", augment)

    def test_the_command_line_shows_no_traceback(self, tmp_path):
        command = ["-m", "facelm.train", "data.root=/nowhere", f"hydra.run.dir={tmp_path}"]
        done = warm.run(command)
        assert done.returncode == 1
        assert "error: no 300W images under root='/nowhere'" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("override", "message"),
        [("experiment=none_such", "none_such"), ("optim.lr=1", "Key 'lr' is not in struct")],
    )
    def test_unknown_names_on_the_command_line(self, tmp_path, override, message):
        command = ["-m", "facelm.train", override, f"hydra.run.dir={tmp_path}"]
        done = warm.run(command)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
