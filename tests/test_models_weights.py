from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import save_file

from facelm.models import build_model, load_weights, save_weights
from facelm.models.download import sha256
from facelm.models.published import HRNET, MMPOSE, recognise
from facelm.models.weights import NAMINGS, NEAREST_NOTE, detect_naming, open_weights
from facelm.training.batch_norm import is_young
from tiny_networks import as_written_by, heatmaps, tiny


@pytest.fixture
def saved(tmp_path):
    """saved(content): the path of a torch file holding it."""

    def save(content, name="weights.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


class TestNamings:
    @pytest.mark.parametrize("naming", ["hrnet", "facelm", "mmpose-1.x", "mmpose-0.x"])
    def test_whole_networks_load(self, saved, naming):
        source, net = tiny(1), tiny(2)
        report = load_weights(net, saved(as_written_by(naming, source)))
        assert report.naming == naming
        assert (len(report.matched), report.missing, report.left_over) == (len(source.state_dict()), (), ())
        assert torch.equal(heatmaps(net), heatmaps(source))

    def test_a_backbone_leaves_the_head_and_says_so(self, saved):
        source, net = tiny(1), tiny(2)
        head = {key: value.clone() for key, value in net.head.state_dict().items()}
        report = load_weights(net, saved(as_written_by("timm", source)))
        assert report.naming == "timm"
        assert {key.split(".")[0] for key in report.missing} == {"head"}
        assert report.left_over == ("incre_modules.0.0.conv1.weight", "classifier.weight")
        assert all(torch.equal(value, head[key]) for key, value in net.head.state_dict().items())
        assert torch.equal(net.stage4[0].branches[3][0].conv1.weight, source.stage4[0].branches[3][0].conv1.weight)
        assert "head is kept" in report.notes[0]

    def test_imagenet_weights_are_told_apart_by_their_upsampling(self, saved, caplog):
        with caplog.at_level(logging.INFO):
            report = load_weights(tiny(2), saved(as_written_by("timm", tiny(1))))
        assert NEAREST_NOTE in report.notes
        assert "trained with nearest upsampling in the fuse layers" in caplog.text
        assert NEAREST_NOTE not in load_weights(tiny(2), saved(tiny(1).state_dict())).notes

    @pytest.mark.parametrize("naming", NAMINGS)
    @pytest.mark.parametrize("ending", [".pth", ".safetensors"])
    def test_written_and_read_again(self, tmp_path, naming, ending):
        source, net = tiny(1), tiny(2)
        net.head.load_state_dict(source.head.state_dict())  # timm's naming has none
        path = tmp_path / f"out{ending}"
        save_weights(source, path, naming)
        assert load_weights(net, path).naming == naming
        assert torch.equal(heatmaps(net), heatmaps(source))
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("naming", ["hrnet", "mmpose-1.x", "mmpose-0.x"])
    def test_written_names_are_theirs(self, tmp_path, naming):
        save_weights(tiny(), tmp_path / "out.pth", naming)
        content = torch.load(tmp_path / "out.pth", weights_only=True)
        expected = as_written_by(naming, tiny())
        assert list(content.get("state_dict", content)) == list(expected.get("state_dict", expected))

    @pytest.mark.parametrize("ending", [".pth", ".safetensors"])
    def test_who_may_read_the_folder_may_read_the_file(self, tmp_path, ending):
        """A wheel keeps the permissions: weights of 0600 are no use to the others of a machine."""
        (tmp_path / "plain").touch()
        save_weights(tiny(), tmp_path / f"w{ending}")
        assert (tmp_path / f"w{ending}").stat().st_mode == (tmp_path / "plain").stat().st_mode

    def test_unknown_naming(self, tmp_path):
        with pytest.raises(ValueError, match="unknown naming 'keras'; choose one of hrnet, facelm, "):
            save_weights(tiny(), tmp_path / "out.pth", "keras")

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
    def test_prefixes_of_wrappers_are_dropped(self, saved, prefix):
        source, net = tiny(1), tiny(2)
        load_weights(net, saved({prefix + key: value for key, value in source.state_dict().items()}))
        assert torch.equal(heatmaps(net), heatmaps(source))

    def test_old_files_without_batch_counters(self, saved):
        source, net = tiny(1), tiny(2)
        state = {k: v for k, v in source.state_dict().items() if not k.endswith("num_batches_tracked")}
        report = load_weights(net, saved(state))
        assert report.missing == ()
        assert torch.equal(heatmaps(net), heatmaps(source))

    def test_half_precision_fills_a_float32_network(self, tmp_path):
        source, net = tiny(1), tiny(2)
        save_file({key: value.half() for key, value in source.state_dict().items()}, tmp_path / "half.safetensors")
        load_weights(net, tmp_path / "half.safetensors")
        assert net.conv1.weight.dtype == torch.float32
        torch.testing.assert_close(heatmaps(net), heatmaps(source), atol=2e-2, rtol=0)

    def test_the_report_reads_well(self, saved):
        path = saved(as_written_by("timm", tiny(1)))
        text = str(load_weights(tiny(2), path))
        assert f"weights from {path} (timm names): 318 matched, 8 missing, 2 left over" in text
        assert "missing: head.0.weight, head.0.bias, head.1.weight, head.1.bias, and 4 more" in text
        assert sha256(path) in text


class TestWhatTheFileTells:
    def test_before_a_network_is_built(self, saved):
        file = open_weights(saved(as_written_by("mmpose-1.x", tiny(num_landmarks=98))))
        assert (file.architecture, file.num_landmarks, file.naming) == ("hrnetv2_tiny", 98, "mmpose-1.x")
        assert file.checkpoint["meta"] == {"epoch": 60}

    def test_a_backbone_has_no_landmarks(self, saved):
        file = open_weights(saved(as_written_by("timm", tiny())))
        assert (file.architecture, file.num_landmarks) == ("hrnetv2_tiny", None)

    def test_an_opened_file_fills_a_network(self, saved):
        source, net = tiny(1), tiny(2)
        load_weights(net, open_weights(saved(source.state_dict())))
        assert torch.equal(heatmaps(net), heatmaps(source))


class TestPublished:
    def test_by_name(self):
        assert recognise("hrnetv2_w18_300w_256x256-eea53406_20211019.pth", "mmpose-0.x") is MMPOSE
        assert recognise("HR18-300W.pth", "hrnet") is HRNET

    def test_by_content(self):
        assert recognise("renamed.pth", "mmpose-0.x", sha256="eea53406" + 56 * "0") is MMPOSE

    def test_by_naming_without_the_numbers(self):
        known = recognise("best_NME_epoch_57.pth", "mmpose-1.x", sha256=64 * "0")
        assert known is not None
        assert (known.codec, known.pixel_origin, known.nme) == (MMPOSE.codec, 0, {})

    @pytest.mark.parametrize("naming", ["hrnet", "facelm", "timm"])
    def test_facelms_own_names_say_nothing(self, naming):
        assert recognise("model.pth", naming, sha256=64 * "0") is None

    def test_they_were_trained_on_numbers_as_stored(self):
        assert (MMPOSE.codec["name"], MMPOSE.pixel_origin, MMPOSE.flip) == ("mmpose", 0, "shifted")
        assert (HRNET.codec["name"], HRNET.pixel_origin, HRNET.flip) == ("hrnet", 0, "none")

    def test_the_codecs_can_be_built(self):
        codec = pytest.importorskip("facelm.codec")
        for known in (MMPOSE, HRNET):
            assert codec.build_codec(dict(known.codec), known.crop_size).name == known.codec["name"]

    @pytest.mark.parametrize("num_landmarks", [68, 98])
    def test_of_the_data_set_with_as_many_points(self, saved, num_landmarks):
        """A WFLW checkpoint in mmpose's naming is not taken for a 300W one."""
        net = build_model("hrnetv2_w18", num_landmarks)
        file = open_weights(saved(as_written_by("mmpose-1.x", net)))
        assert file.published is not None
        assert file.published.scheme == {68: "ibug68", 98: "wflw98"}[num_landmarks]
        notes = load_weights(net, file).notes
        assert any("pixel origin 0" in note for note in notes) == (num_landmarks == 68)  # 300W's affair


def test_statistics_without_a_number_of_batches_are_not_new(saved):
    """A file of torch 0.4 has no num_batches_tracked: `WarmedStatistics` would average over its statistics."""
    state = {key: value for key, value in tiny(1).state_dict().items() if not key.endswith("num_batches_tracked")}
    net = tiny(2)
    report = load_weights(net, saved(state))
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert not any(is_young(norm) for norm in norms)
    assert not any(key.endswith("num_batches_tracked") for key in report.matched)


class TestWrongModel:
    def refuse(self, saved, content, pattern, net=None):
        net = net or tiny(2)
        before = heatmaps(net)
        with pytest.raises(ValueError, match=pattern):
            load_weights(net, saved(content))
        assert torch.equal(heatmaps(net), before)

    def test_another_number_of_landmarks(self, saved):
        self.refuse(
            saved,
            tiny(num_landmarks=98).state_dict(),
            r"another network \(hrnetv2_tiny, 98 landmarks\): 2 tensors differ in shape: "
            r"head\.3\.weight \[98, 60, 1, 1\], expected \[68, 60, 1, 1\]",
        )

    def test_another_width(self, saved):
        self.refuse(saved, build_model("hrnetv2_w18").state_dict(), r"\(hrnetv2_w18, 68 landmarks\): .* and \d+ more")

    @pytest.mark.parametrize("key", ["stage3.0.branches.0.0.bn1.running_var", "head.1.bias"])
    def test_a_missing_key(self, saved, key):
        state = tiny(1).state_dict()
        del state[key]
        self.refuse(saved, state, rf"does not fit the network: .* 1 are missing \({key}\)")

    def test_a_missing_key_of_a_backbone(self, saved):
        state = as_written_by("timm", tiny(1))
        del state["stage4.0.branches.3.0.conv2.weight"]
        self.refuse(saved, state, r"1 are missing \(stage4\.0\.branches\.3\.0\.conv2\.weight\)")

    def test_a_key_too_many(self, saved):
        state = tiny(1).state_dict() | {"stage4.1.branches.0.0.conv1.weight": torch.ones(1)}
        self.refuse(saved, state, r"1 left over \(stage4\.1\.branches\.0\.0\.conv1\.weight\)")

    def test_a_resnet(self, saved):
        self.refuse(saved, {"conv1.weight": torch.ones(64, 3, 7, 7), "fc.weight": torch.ones(2)}, "another network")

    def test_something_else(self, saved):
        self.refuse(
            saved, {"encoder.weight": torch.ones(2)}, r"these are no HRNetV2 weights: 1 keys \(encoder\.weight\)"
        )

    def test_no_tensors(self, saved):
        self.refuse(saved, {"epoch": 3, "best": 1.0}, "no weights found: .* found the entries epoch, best")

    def test_a_tensor_alone(self, saved):
        self.refuse(saved, torch.ones(3), "holds a Tensor, not a dictionary")

    def test_what_fits_can_be_taken(self, saved):
        source, net = tiny(1, num_landmarks=98), tiny(2)
        last = net.head[3].weight.clone()
        report = load_weights(net, saved(source.state_dict()), strict=False)
        assert report.missing == report.left_over == ("head.3.weight", "head.3.bias")
        assert torch.equal(net.head[0].weight, source.head[0].weight)
        assert torch.equal(net.head[3].weight, last)

    @pytest.mark.parametrize("naming", ["facelm", "mmpose-1.x"])
    def test_another_number_of_landmarks_gets_a_new_last_convolution(self, saved, naming):
        source, net = tiny(1), tiny(2, num_landmarks=20)
        last = net.head[3].weight.clone()
        report = load_weights(net, saved(as_written_by(naming, source)), new_head=True)
        assert report.missing == ("head.3.weight", "head.3.bias")
        assert torch.equal(net.head[0].weight, source.head[0].weight)
        assert torch.equal(net.head[3].weight, last)
        assert any("68 landmarks in the file, 20 here" in note for note in report.notes)
        whole = source.state_dict()
        del whole["conv1.weight"]
        with pytest.raises(ValueError, match="1 are missing"):
            load_weights(net, saved(whole), new_head=True)


def test_every_naming_is_told_apart():
    for naming in ("hrnet", "facelm", "mmpose-1.x", "mmpose-0.x", "timm"):
        content = as_written_by(naming, tiny())
        assert detect_naming(content.get("state_dict", content)) == naming
