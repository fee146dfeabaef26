"""Where weights are found: files, run folders, addresses."""

from __future__ import annotations

import http.server
import logging
import threading

import pytest
import torch

from facelm.models import build_model, load_weights, save_weights
from facelm.models.download import download, local_file, sha256, web_address
from tiny_networks import heatmaps, tiny


class TestLocalFiles:
    def test_a_run_folder_gives_its_best_checkpoint(self, tmp_path):
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints/last.ckpt").touch()
        assert local_file(tmp_path).name == "last.ckpt"
        (tmp_path / "checkpoints/best.ckpt").touch()
        assert local_file(str(tmp_path)).name == "best.ckpt"

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no checkpoint in the folder .*checkpoints/best\.ckpt"):
            local_file(tmp_path)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no weights at '.*nothing\.pth'.*model\.weights=null"):
            load_weights(tiny(), tmp_path / "nothing.pth")

    def test_build_model_loads(self, tmp_path):
        source = tiny(1)
        torch.save(source.state_dict(), tmp_path / "weights.pth")
        net = build_model("hrnetv2_tiny", weights=tmp_path / "weights.pth")
        assert torch.equal(heatmaps(net.eval()), heatmaps(source))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine; `server.files` maps paths to bytes, `server.asked` lists what was asked for."""
    monkeypatch.setenv("FACELM_CACHE", str(tmp_path / "cache"))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            body = self.server.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + self.server.short))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args): ...

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.files, web.asked, web.short = {}, [], 0
    web.url = f"http://127.0.0.1:{web.server_address[1]}"
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    yield web
    web.shutdown()
    web.server_close()


class TestDownload:
    def test_once_with_its_checksum(self, server, tmp_path, caplog):
        source, net = tiny(1), tiny(2)
        save_weights(source, tmp_path / "w.pth")
        server.files["/a/w.pth"] = (tmp_path / "w.pth").read_bytes()
        with caplog.at_level(logging.INFO):
            load_weights(net, f"{server.url}/a/w.pth")
            load_weights(net, f"{server.url}/a/w.pth")
        assert server.asked == ["/a/w.pth"]
        assert sha256(tmp_path / "w.pth") in caplog.text
        assert torch.equal(heatmaps(net), heatmaps(source))

    def test_equal_names_from_two_addresses_are_two_files(self, server):
        server.files |= {"/a/w.pth": b"one", "/b/w.pth": b"two"}
        assert download(f"{server.url}/a/w.pth").read_bytes() == b"one"
        assert download(f"{server.url}/b/w.pth").read_bytes() == b"two"

    def test_a_name_that_promises_a_checksum(self, server, caplog):
        server.files["/w-00eb2006.pth"] = b"something else"
        download(f"{server.url}/w-00eb2006.pth")
        assert "promises a sha256 of 00eb2006" in caplog.text

    def test_not_there(self, server, tmp_path):
        with pytest.raises(ConnectionError, match=r"could not download .*404.*model\.weights=null"):
            build_model("hrnetv2_tiny", weights=f"{server.url}/none.pth")
        assert not list((tmp_path / "cache").rglob("*.p*"))

    def test_cut_off(self, server, tmp_path):
        server.files["/w.pth"], server.short = b"half", 4
        with pytest.raises(ConnectionError, match=r"model\.weights=null"):
            download(f"{server.url}/w.pth")
        assert not list((tmp_path / "cache").rglob("*.p*"))

    def test_nobody_answers(self, server):
        server.shutdown()
        server.server_close()
        with pytest.raises(ConnectionError, match=r"could not download .*model\.weights=FILE.*model\.weights=null"):
            download(f"{server.url}/w.pth")

    def test_addresses(self):
        assert web_address("hf://org/repo/sub/w.safetensors") == (
            "https://huggingface.co/org/repo/resolve/main/sub/w.safetensors"
        )
        assert web_address("open-mmlab://msra/hrnetv2_w18") == (
            "https://download.openmmlab.com/pretrain/third_party/hrnetv2_w18-00eb2006.pth"
        )

    @pytest.mark.parametrize("source", ["hf://org/repo", "open-mmlab://msra/hrnet", "ftp://host/w.pth"])
    def test_addresses_that_cannot_be(self, source):
        with pytest.raises(ValueError, match=source):
            load_weights(tiny(), source)
