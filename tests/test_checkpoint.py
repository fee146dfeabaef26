import pickle

import pytest
import torch

from facelm.models.spec import ModelSpec, checkpoint_facts, read_facelm_checkpoint, write_checkpoint

SPEC = ModelSpec(architecture="hrnetv2_tiny", crop_size=64, codec={"name": "dark", "sigma": 2.0}, flip="exact")


class TestModelSpec:
    def test_round_trip(self):
        plain = SPEC.to_dict()
        assert ModelSpec.from_dict(plain) == SPEC
        assert all(isinstance(v, str | int | float | list | dict) for v in plain.values())

    def test_builds_what_it_names(self):
        assert SPEC.build_codec().name == "dark"
        assert SPEC.build_codec().heatmap_size == 16
        heatmaps = SPEC.build_network()(torch.zeros(1, 3, 64, 64))
        assert heatmaps.shape == (1, 68, 16, 16)

    def test_a_spec_written_before_there_was_a_shift_has_none(self):
        plain = {key: value for key, value in SPEC.to_dict().items() if key != "annotation_shift"}
        assert ModelSpec.from_dict(plain) == SPEC
        assert SPEC.shift_crop == 0

    def test_the_shift_in_pixels_of_the_crop(self):
        """A box of 100 image pixels is cut 125 wide and becomes 64: one per cent of it is 0.512 pixels there."""
        assert ModelSpec.from_dict({**SPEC.to_dict(), "annotation_shift": 0.01}).shift_crop == pytest.approx(0.512)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"annotation_shift": 0.6},
                "annotation_shift is a share of the box's side, 300W's is about 0.005; got 0.6",
            ),
            ({"annotation_shift": float("nan")}, "annotation_shift is a share"),
            ({"annotation_shift": None}, "annotation_shift is a share"),
            ({"architecture": "resnet"}, "no architecture 'resnet'; known: hrnetv2_tiny"),
            ({"flip": "both"}, "inference.flip is one of none, shifted, exact; got 'both'"),
            ({"crop_size": 100}, "multiple of 32"),
            ({"pixel_origin": 2}, "pixel_origin is 0 or 1, got 2"),
            ({"codec": {"name": "fancy"}}, "no codec 'fancy'"),
            ({"scheme": "wflw"}, "no landmark scheme 'wflw'"),
        ],
    )
    def test_impossible_values(self, change, message):
        with pytest.raises(ValueError, match=message):
            ModelSpec.from_dict({**SPEC.to_dict(), **change})

    def test_entries_of_a_newer_version(self):
        with pytest.raises(ValueError, match="unknown entries: depth.*update facelm"):
            ModelSpec.from_dict({**SPEC.to_dict(), "depth": 3})

    def test_another_network(self):
        other = ModelSpec.from_dict({**SPEC.to_dict(), "architecture": "hrnetv2_w18"})
        with pytest.raises(ValueError, match="belongs to another architecture: 'hrnetv2_w18'.*model.weights=PATH"):
            other.require_same_network(SPEC)


class TestFiles:
    def content(self, value=1.0, **config):
        return {"state_dict": {"w": torch.full((3,), value)}, "facelm": checkpoint_facts(SPEC, config)}

    def test_round_trip_with_weights_only(self, tmp_path):
        write_checkpoint(self.content(), tmp_path / "a" / "last.ckpt")
        assert torch.load(tmp_path / "a" / "last.ckpt", weights_only=True)["facelm"]["spec"] == SPEC.to_dict()
        assert [p.name for p in (tmp_path / "a").iterdir()] == ["last.ckpt"]

    def test_a_full_disk_leaves_the_previous_one(self, tmp_path, monkeypatch):
        path = tmp_path / "last.ckpt"
        write_checkpoint(self.content(1.0), path)

        def full(*args, **kwargs):
            raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos")  # torch's words

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="not written.*a previous one is untouched"):
            write_checkpoint(self.content(2.0), path)
        monkeypatch.undo()
        assert read_facelm_checkpoint(path)["state_dict"]["w"].tolist() == [1.0] * 3
        assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]

    def test_the_stored_config_is_only_a_record(self, tmp_path):
        marker = tmp_path / "ran"
        path = tmp_path / "evil.ckpt"
        write_checkpoint(self.content(model={"_target_": "os.system", "command": f"touch {marker}"}), path)
        checkpoint = read_facelm_checkpoint(path)
        assert ModelSpec.from_checkpoint(checkpoint).build_network() is not None
        assert not marker.exists()

    def test_a_pickle_that_runs_code_is_refused(self, tmp_path):
        class Evil:
            def __reduce__(self):
                import os

                return os.system, (f"touch {tmp_path / 'ran'}",)

        path = tmp_path / "evil.ckpt"
        torch.save({"state_dict": {}, "facelm": Evil()}, path)
        with pytest.raises(ValueError, match="would run code"):
            read_facelm_checkpoint(path)
        path.write_bytes(pickle.dumps(Evil()))
        with pytest.raises(ValueError, match="evil.ckpt"):
            read_facelm_checkpoint(path)
        assert not (tmp_path / "ran").exists()

    def test_damaged(self, tmp_path):
        path = tmp_path / "cut.ckpt"
        write_checkpoint(self.content(), path)
        path.write_bytes(path.read_bytes()[:400])
        with pytest.raises(ValueError, match="cut.ckpt.*damaged"):
            read_facelm_checkpoint(path)

    def test_not_ours(self, tmp_path):
        torch.save({"state_dict": {"w": torch.zeros(1)}}, tmp_path / "other.ckpt")
        with pytest.raises(ValueError, match="carries no facelm model spec"):
            read_facelm_checkpoint(tmp_path / "other.ckpt")

    def test_absent(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no checkpoint"):
            read_facelm_checkpoint(tmp_path / "none.ckpt")
