"""Files that would run code, or are damaged, are refused in words; nothing in them is run."""

import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from facelm.models import load_weights, save_weights
from facelm.models.cards import write_card
from facelm.models.reading import read_checkpoint
from perfect_network import SPEC
from tiny_networks import as_written_by, heatmaps, tiny


def saved(content, folder):
    torch.save(content, folder / "weights.pth")
    return folder / "weights.pth"


class RunsCode:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class TestUnsafeAndDamagedFiles:
    @pytest.mark.parametrize("wrap", [lambda bad: {"state_dict": {"conv1.weight": bad}}, lambda bad: bad])
    def test_a_file_that_runs_code_is_refused(self, tmp_path, wrap):
        path = saved(wrap(RunsCode(tmp_path / "ran")), tmp_path)
        with pytest.raises(ValueError, match=r"was refused: loading it would run code \((posix|os|nt)\.system"):
            load_weights(tiny(), path)
        assert not (tmp_path / "ran").exists()

    def test_a_plain_pickle_that_runs_code_is_refused(self, tmp_path):
        path = tmp_path / "weights.pth"
        path.write_bytes(pickle.dumps(RunsCode(tmp_path / "ran"), protocol=2))
        with pytest.raises(ValueError, match=r"refused: loading it would run code \(.*system"):
            load_weights(tiny(), path)
        assert not (tmp_path / "ran").exists()

    def test_a_whole_module_is_refused_with_the_way_out(self, tmp_path):
        path = saved({"state_dict": tiny()}, tmp_path)
        with pytest.raises(ValueError, match=r"refused.*facelm\.models\.hrnet.*save model\.state_dict\(\)"):
            load_weights(tiny(), path)

    def test_getattr_is_not_run(self, tmp_path):
        """mmpose's logs name `getattr`; an inert object stands in for it, and cannot be called."""

        class Method:
            def __reduce__(self):
                return getattr, ("abc", "upper")

        content = read_checkpoint(saved({"method": Method()}, tmp_path))
        assert not callable(content["method"])

    def test_mmposes_logs_are_skipped(self, tmp_path, monkeypatch):
        """mmpose 1.x's training checkpoints hold mmengine's log buffers, with methods and numpy arrays."""

        class HistoryBuffer:
            def __init__(self):
                self.statistics_methods = {"min": HistoryBuffer.min}
                self._log_history = np.arange(3.0)
                self.last = np.float64(2)

            def min(self): ...

        name = "mmengine.logging.history_buffer"
        HistoryBuffer.__module__, HistoryBuffer.__qualname__ = name, "HistoryBuffer"
        HistoryBuffer.min.__module__, HistoryBuffer.min.__qualname__ = name, "HistoryBuffer.min"
        modules = {key: types.ModuleType(key) for key in ("mmengine", "mmengine.logging", name)}
        modules[name].HistoryBuffer = HistoryBuffer
        source, path = tiny(1), tmp_path / "epoch_60.pth"
        with monkeypatch.context() as patch:
            for key, module in modules.items():
                patch.setitem(sys.modules, key, module)
            content = as_written_by("mmpose-1.x", source) | {"message_hub": {"log_scalars": {"loss": HistoryBuffer()}}}
            torch.save(content, path)
        assert "mmengine" not in sys.modules
        net = tiny(2)
        load_weights(net, path)
        assert torch.equal(heatmaps(net), heatmaps(source))

    @pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
    @pytest.mark.parametrize("damage", ["truncated", "empty", "text", "middle"])
    def test_damaged(self, tmp_path, name, damage):
        path = tmp_path / name
        save_weights(tiny(), path)
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(
            {
                "truncated": whole[:middle],
                "empty": b"",
                "text": b"<html>404 not found</html>",
                "middle": whole[:40] + bytes(200) + whole[240:],
            }[damage]
        )
        with pytest.raises(ValueError, match=r"w\.(pth|safetensors)' \(\d+ bytes\) is damaged or no weight file: .+"):
            load_weights(tiny(), path)

    def test_the_advice_to_load_unsafely_is_not_passed_on(self, tmp_path):
        path = tmp_path / "w.pth"
        path.write_bytes(b"hello, no pickle here")
        with pytest.raises(ValueError) as error:
            read_checkpoint(path)
        assert "weights_only=False" not in str(error.value)

    def test_nor_in_torch_s_other_words(self, tmp_path, monkeypatch):
        advice = "Weights only load failed. Re-running `torch.load` with `weights_only` set to `False` will succeed."
        monkeypatch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(RuntimeError(advice)))
        (tmp_path / "w.pth").write_bytes(b"\x80 no zip")
        with pytest.raises(ValueError, match=r"damaged or no weight file: RuntimeError\. Copy") as error:
            read_checkpoint(tmp_path / "w.pth")
        assert "weights_only" not in str(error.value)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"hello", "it begins with b'hello', as no file of torch's does"),
            (b"\x89PNG\r\n\x1a\n", "it begins with b'.x89PNG"),
            (b"", "it is empty"),
        ],
    )
    def test_what_else_it_is(self, tmp_path, content, said):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(ValueError, match=rf"damaged or no weight file: {said}"):
            read_checkpoint(tmp_path / "w.pth")

    def test_a_zip_of_something_else(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
            archive.writestr("photo.jpg", b"0")
        with pytest.raises(ValueError, match="no weight file: it is a zip, but none of torch's"):
            read_checkpoint(tmp_path / "w.pth")


class TestSilentDamage:
    @pytest.mark.parametrize("name", ["w.pth", "w.ckpt"])
    @pytest.mark.parametrize("place", [0.3, 0.5, 0.9])
    def test_a_flipped_bit_is_not_loaded_as_another_weight(self, tmp_path, name, place):
        """torch does not look at the checksums of its own files."""
        path = tmp_path / name
        save_weights(tiny(), path)
        whole = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            part = max(archive.infolist(), key=lambda info: info.file_size)
        whole[part.header_offset + 200 + int(place * part.file_size)] ^= 1
        path.write_bytes(whole)
        with pytest.raises(ValueError, match=r"w\.(pth|ckpt)' .* is damaged.*its part '.*' is not what was written"):
            read_checkpoint(path)

    @pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
    def test_training_compares_a_card_s_checksum_too(self, tmp_path, name):
        path = tmp_path / name
        save_weights(SPEC.build_network(), path)
        write_card(path, SPEC)
        whole = bytearray(path.read_bytes())
        whole[-2000] ^= 1
        path.write_bytes(whole)
        with pytest.raises(ValueError, match="the card beside it was written for"):
            load_weights(SPEC.build_network(), path)

    def test_a_file_that_unpacks_to_far_more_is_refused(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(10_000_000))
        with pytest.raises(ValueError, match="it is packed"):
            read_checkpoint(tmp_path / "w.pth")
