import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from facelm.cli import main
from facelm.data.synthetic.dataset import draw_face
from facelm.geometry.boxes import box_from_landmarks
from facelm.models import HRNetV2, build_model, save_weights
from facelm.models.cards import read_card
from facelm.models.download import local_file
from facelm.models.loading import load_model
from facelm.models.spec import ModelSpec, checkpoint_facts
from facelm.predict import Predictor

SPEC = ModelSpec(
    architecture="hrnetv2_tiny", crop_size=64, codec={"name": "dark", "sigma": 2.0, "blur_kernel_size": 11}
)
SAID = ["--codec", "dark:2", "--pixel-origin", "1", "--crop-size", "64"]


def lively_net(name="hrnetv2_tiny") -> HRNetV2:
    torch.manual_seed(3)
    net = build_model(name, init="kaiming").eval()
    torch.nn.init.normal_(net.head[3].weight, std=0.3)
    for buffer in net.buffers():
        buffer.add_(torch.rand(buffer.shape) if buffer.is_floating_point() else 1)
    return net


def write_checkpoint(path: Path, spec: ModelSpec = SPEC) -> Path:
    state = {f"net.{key}": value for key, value in lively_net().state_dict().items()}
    torch.save({"state_dict": state, "facelm": checkpoint_facts(spec, {})}, path)
    return path


def landmarks_of(net, spec) -> np.ndarray:
    """Landmarks in the image of a drawn face, as `facelm predict` would find them in its annotated box."""
    image, landmarks_image = draw_face(np.random.default_rng(1))
    predictor = Predictor(net, spec, device="cpu", flip="none", refine=0)
    box = box_from_landmarks(landmarks_image).xyxy
    return predictor(image, [box], convention="square")[0].landmarks_image


def convert(source, out, *options) -> int:
    return main(["convert", str(source), "--out", str(out), *options])


class TestConverted:
    @pytest.mark.parametrize("naming", ["mmpose-0.x", "mmpose-1.x", "hrnet", "facelm"])
    def test_weights_of_any_naming_give_the_same_landmarks(self, naming, tmp_path, capsys):
        net = lively_net()
        save_weights(net, tmp_path / "theirs.pth", naming)
        assert convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", *SAID) == 0
        model = load_model(tmp_path / "ours.safetensors")
        assert model.spec == SPEC
        np.testing.assert_array_equal(landmarks_of(model.net, model.spec), landmarks_of(net, SPEC))
        said = capsys.readouterr().out
        assert f"({naming} names): {len(net.state_dict())} matched, 0 missing, 0 left over" in said
        assert "codec dark (sigma 2.0, blur_kernel_size 11), pixel origin 1" in said

    @pytest.mark.parametrize("naming", ["mmpose-0.x", "mmpose-1.x", "hrnet"])
    def test_there_and_back(self, naming, tmp_path, capsys):
        """Under mmpose's names too, weights that were not trained with mmpose's codec are not taken for mmpose's."""
        source = write_checkpoint(tmp_path / "ours.ckpt")
        assert convert(source, tmp_path / "theirs.pth", "--naming", naming) == 0
        assert convert(tmp_path / "theirs.pth", tmp_path / "back.safetensors") == 0
        assert "trained with mmpose" not in capsys.readouterr().out
        first, theirs, last = map(load_model, (source, tmp_path / "theirs.pth", tmp_path / "back.safetensors"))
        assert first.spec == theirs.spec == last.spec
        assert theirs.title == "theirs"
        for other in (theirs, last):
            np.testing.assert_array_equal(landmarks_of(first.net, first.spec), landmarks_of(other.net, other.spec))

    def test_without_its_card_it_is_as_any_other_file(self, tmp_path, capsys):
        source = write_checkpoint(tmp_path / "ours.ckpt")
        assert convert(source, tmp_path / "theirs.pth") == 0
        (tmp_path / "theirs.pth.json").unlink()
        assert convert(tmp_path / "theirs.pth", tmp_path / "back.safetensors") == 1
        assert "cannot be told from the file" in capsys.readouterr().err
        assert convert(tmp_path / "theirs.pth", tmp_path / "back.safetensors", *SAID) == 0
        assert load_model(tmp_path / "back.safetensors").spec == SPEC

    def test_mmpose_s_own_keys(self, tmp_path, capsys):
        assert convert(write_checkpoint(tmp_path / "a.ckpt"), tmp_path / "a.pth", "--naming", "mmpose-1.x") == 0
        state = torch.load(tmp_path / "a.pth", weights_only=True)["state_dict"]
        assert {"backbone.conv1.weight", "head.conv_layers.0.weight", "head.final_layer.bias"} <= set(state)
        said = capsys.readouterr().out
        assert f"its card {tmp_path / 'a.pth.json'}" in said
        assert "mmpose decodes with its codec 'mmpose' and uses 300W's 1-based coordinates as they are" in said

    def test_left_over_and_missing_are_said(self, tmp_path, capsys):
        state = {
            key: value for key, value in lively_net().state_dict().items() if not key.endswith("num_batches_tracked")
        }
        torch.save({"state_dict": {**state, "loss.scale": torch.ones(1)}}, tmp_path / "theirs.pth")
        assert convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", *SAID) == 0
        said = capsys.readouterr().out
        assert "0 missing, 1 left over" in said
        assert "left over: loss.scale" in said


class TestWhatTheyWereTrainedFor:
    def test_a_checkpoint_of_facelm_says_it(self, tmp_path):
        spec = replace(SPEC, flip="exact", pixel_origin=0)
        assert convert(write_checkpoint(tmp_path / "a.ckpt", spec), tmp_path / "b.safetensors") == 0
        assert read_card(tmp_path / "b.safetensors").spec == spec

    def test_options_replace_what_is_known(self, tmp_path, capsys):
        source, shift = write_checkpoint(tmp_path / "a.ckpt"), ("--annotation-shift", "0.004")
        assert convert(source, tmp_path / "b.safetensors", "--codec", "subpixel", "--flip", "shifted", *shift) == 0
        spec = read_card(tmp_path / "b.safetensors").spec
        assert (dict(spec.codec), spec.flip) == ({"name": "subpixel", "sigma": 1.5, "radius": None}, "shifted")
        assert (spec.crop_size, spec.annotation_shift) == (64, 0.004)
        assert "landmarks moved by 0.004 of the box to the right" in capsys.readouterr().out

    @pytest.mark.parametrize("options", [[], ["--codec", "hrnet:1"], ["--pixel-origin", "0"]])
    def test_unknown_and_unsaid(self, options, tmp_path, capsys):
        save_weights(lively_net(), tmp_path / "final_state.pth")
        assert convert(tmp_path / "final_state.pth", tmp_path / "b.safetensors", *options) == 1
        said = capsys.readouterr().err
        assert "cannot be told from the file" in said
        assert "--codec hrnet:1 --pixel-origin 0 for the HRNet authors' code" in said
        assert not (tmp_path / "b.safetensors").exists()

    def test_weights_alone_may_stay_weights_alone(self, tmp_path, capsys):
        save_weights(lively_net(), tmp_path / "a.pth")
        assert convert(tmp_path / "a.pth", tmp_path / "b.pth", "--naming", "mmpose-0.x") == 0
        assert "note: what the weights were trained for cannot be told" in capsys.readouterr().out
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "b.pth"]

    def test_a_card_of_other_weights_is_not_left_beside_new_ones(self, tmp_path, capsys):
        save_weights(lively_net(), tmp_path / "a.pth")
        assert convert(write_checkpoint(tmp_path / "a.ckpt"), tmp_path / "b.pth") == 0
        assert convert(tmp_path / "a.pth", tmp_path / "b.pth") == 1
        assert "b.pth.json' would be taken for the card of --out" in capsys.readouterr().err
        assert load_model(tmp_path / "b.pth").spec == SPEC

    def test_weights_with_mmpose_s_names_are_mmpose_s(self, tmp_path, capsys):
        save_weights(build_model("hrnetv2_w18"), tmp_path / "best_NME_epoch_60.pth", "mmpose-1.x")
        assert convert(tmp_path / "best_NME_epoch_60.pth", tmp_path / "b.safetensors") == 0
        card = read_card(tmp_path / "b.safetensors")
        assert (dict(card.spec.codec), card.spec.pixel_origin) == ({"name": "mmpose", "sigma": 1.5}, 0)
        assert (card.spec.flip, dict(card.nme)) == ("shifted", {})
        assert "pixel origin 0 (300W's 1-based coordinates as stored), flip test shifted" in capsys.readouterr().out

    def test_the_authors_file_brings_its_numbers(self, tmp_path, capsys):
        save_weights(build_model("hrnetv2_w18"), tmp_path / "HR18-300W.pth")
        assert convert(tmp_path / "HR18-300W.pth", tmp_path / "b.safetensors") == 0
        card = read_card(tmp_path / "b.safetensors")
        assert (dict(card.spec.codec), card.spec.pixel_origin) == ({"name": "hrnet", "sigma": 1.0}, 0)
        assert card.nme["common"] == 2.91
        assert "NME: common 2.91, challenge 5.11" in capsys.readouterr().out

    def test_a_card_s_facts_travel(self, trained_run, tmp_path):
        assert convert(trained_run, tmp_path / "one.safetensors") == 0
        summary = json.loads((trained_run / "report" / "summary.json").read_text())
        first = read_card(tmp_path / "one.safetensors")
        assert first.nme["common"] == pytest.approx(summary["subsets"]["common"]["nme"], abs=1e-3)
        content = json.loads((tmp_path / "one.json").read_text()) | {"licence": "CC0", "data": "drawn"}
        (tmp_path / "one.json").write_text(json.dumps(content))
        assert convert(tmp_path / "one.safetensors", tmp_path / "two.safetensors") == 0
        second = read_card(tmp_path / "two.safetensors")
        assert (second.licence, second.data, second.nme) == ("CC0", "drawn", first.nme)

    def test_read_another_way_the_numbers_are_no_longer_theirs(self, trained_run, tmp_path):
        assert convert(trained_run, tmp_path / "one.safetensors", "--codec", "mmpose") == 0
        assert read_card(tmp_path / "one.safetensors").nme == {}

    @pytest.mark.parametrize(("codec", "numbers"), [("subpixel:1.5", True), ("mmpose", False)])
    def test_a_licence_stays_and_what_is_spelt_out_is_no_other_way(self, tmp_path, codec, numbers):
        assert convert("hrnetv2_w18", tmp_path / "a.safetensors", "--codec", codec) == 0
        card, shipped = read_card(tmp_path / "a.safetensors"), read_card(local_file("hrnetv2_w18"))
        assert (card.licence, card.data, card.recipe) == (shipped.licence, shipped.data, shipped.recipe)
        assert dict(card.nme) == (dict(shipped.nme) if numbers else {})


class TestBackbones:
    def test_out_and_in_again(self, tmp_path, capsys):
        source = write_checkpoint(tmp_path / "a.ckpt")
        assert convert(source, tmp_path / "timm.pth", "--naming", "timm") == 0
        assert "a backbone, without the head; a training starts from it with model.weights=" in capsys.readouterr().out
        assert convert(tmp_path / "timm.pth", tmp_path / "again.safetensors") == 0
        assert "nearest upsampling in the fuse layers" in capsys.readouterr().out
        net, other = load_model(source).net, build_model("hrnetv2_tiny", weights=tmp_path / "again.safetensors")
        image = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
        for mine, theirs in zip(net.features(image), other.eval().features(image), strict=True):
            assert torch.equal(mine, theirs)
        assert not torch.equal(net.head[3].weight, other.head[3].weight)
        assert not (tmp_path / "again.json").exists()

    def test_mmpose_names_have_no_place_without_a_head(self, tmp_path, capsys):
        assert convert(write_checkpoint(tmp_path / "a.ckpt"), tmp_path / "timm.pth", "--naming", "timm") == 0
        assert convert(tmp_path / "timm.pth", tmp_path / "b.pth", "--naming", "mmpose-1.x") == 1
        assert "give --naming timm" in capsys.readouterr().err


class RunsCode:
    def __reduce__(self):
        return (print, ("run",))


class TestMistakes:
    def test_files_that_are_no_weights(self, tmp_path, capsys):
        (tmp_path / "text.pth").write_text("hello")
        torch.save({"state_dict": RunsCode()}, tmp_path / "code.pth")
        torch.save({"fc.weight": torch.ones(3)}, tmp_path / "other.pth")
        for name, message in [
            ("absent.pth", "absent.pth"),
            ("text.pth", "damaged or no weight file"),
            ("code.pth", "refused: loading it would run code"),
            ("other.pth", "these are no HRNetV2 weights"),
        ]:
            assert convert(tmp_path / name, tmp_path / "out.safetensors", *SAID) == 1
            captured = capsys.readouterr()
            assert message in captured.err
            assert "run" not in captured.out.split()

    def test_places_and_names_that_cannot_be(self, tmp_path, capsys):
        source = write_checkpoint(tmp_path / "a.ckpt")
        (tmp_path / "file").write_text("")
        (tmp_path / "folder.pth").mkdir()
        for out, options, message in [
            (tmp_path / "a.onnx", [], "give it one of the endings .safetensors, .pth, .pt"),
            (tmp_path / "a.pth", ["--naming", "keras"], "--naming keras: known are hrnet, facelm"),
            (tmp_path / "folder.pth", [], "is a folder"),
            (tmp_path / "file" / "a.pth", [], "cannot write to the folder"),
            (Path("/sys/a.safetensors"), [], "cannot write to the folder"),
            (tmp_path / f"{'x' * 252}.pth", [], "File name too long"),
        ]:
            assert convert(source, out, *options) == 1
            assert message in capsys.readouterr().err

    def test_the_source_is_not_overwritten(self, tmp_path, capsys):
        save_weights(lively_net(), tmp_path / "a.pth")
        before = (tmp_path / "a.pth").read_bytes()
        assert convert(tmp_path / "a.pth", tmp_path / "a.pth", *SAID) == 1
        assert "is the file that is read" in capsys.readouterr().err
        assert (tmp_path / "a.pth").read_bytes() == before

    @pytest.mark.parametrize("codec", ["argmax", "dark:wide", "dark:-1"])
    def test_codecs_that_cannot_be(self, codec, tmp_path, capsys):
        with pytest.raises(SystemExit) as exit_:
            convert("a.pth", tmp_path / "b.pth", "--codec", codec)
        assert exit_.value.code == 2
        assert "argument --codec" in capsys.readouterr().err


class TestForShipping:
    FACTS = {"nme": {"dev": 3.1}, "data": "faces", "licence": "research only", "recipe": "how", "commit": "abc"}

    def test_half_the_size_the_same_landmarks_and_a_full_card(self, tmp_path):
        checkpoint = write_checkpoint(tmp_path / "last.ckpt")
        (tmp_path / "facts.json").write_text(json.dumps(self.FACTS))
        assert convert(checkpoint, tmp_path / "full.safetensors") == 0
        assert (
            convert(checkpoint, tmp_path / "half.safetensors", "--half", "--facts", str(tmp_path / "facts.json")) == 0
        )
        sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half")]
        assert sizes[1] < 0.75 * sizes[0]
        full, half = (load_model(tmp_path / f"{name}.safetensors") for name in ("full", "half"))
        assert {value.dtype for value in half.net.state_dict().values()} == {torch.float32, torch.int64}
        torch.testing.assert_close(half.net.bn1.running_var, full.net.bn1.running_var, rtol=0, atol=0)
        assert not torch.equal(half.net.conv1.weight, full.net.conv1.weight)
        difference = landmarks_of(half.net, half.spec) - landmarks_of(full.net, full.spec)
        assert np.abs(difference).max() < 0.5
        card = read_card(tmp_path / "half.safetensors")
        assert {name: getattr(card, name) for name in self.FACTS} == self.FACTS

    @pytest.mark.parametrize("content", ['{"nme": 3}', '{"author": "me"}', "[]", "nothing"])
    def test_facts_that_are_none(self, content, tmp_path, capsys):
        (tmp_path / "facts.json").write_text(content)
        checkpoint = write_checkpoint(tmp_path / "last.ckpt")
        with pytest.raises(SystemExit):
            convert(checkpoint, tmp_path / "a.safetensors", "--facts", str(tmp_path / "facts.json"))
        assert "facts.json" in capsys.readouterr().err
        assert not (tmp_path / "a.safetensors").exists()
