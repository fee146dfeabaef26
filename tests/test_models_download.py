"""Where weights are found: files, run folders, addresses."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import logging
import re
import threading
import time
import urllib.request
from urllib.parse import urlsplit

import pytest
import torch

from facelm.models import build_model, load_weights, save_weights
from facelm.models.download import download, local_file, sha256, web_address
from facelm.models.fetch import _CarefulRedirects
from tiny_networks import heatmaps, tiny

ZIP = b"PK\x03\x04"
"""How a torch file begins."""


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
            self.server.authorized.append(self.headers.get("Authorization"))
            if self.path in self.server.redirects:
                self.send_response(302)
                self.send_header("Location", self.server.redirects[self.path])
                self.end_headers()
                return
            body = self.server.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            if self.server.says_length:
                self.send_header("Content-Length", str(len(body) + self.server.short))
            self.end_headers()
            with contextlib.suppress(OSError):  # the other side may have heard enough
                for start in range(0, len(body), 100) if self.server.pause else [0]:
                    self.wfile.write(body[start : start + 100] if self.server.pause else body)
                    time.sleep(self.server.pause)

        def log_message(self, *args): ...

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.files, web.redirects, web.asked, web.authorized = {}, {}, [], []
    web.short, web.says_length, web.pause = 0, True, 0
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
        server.files |= {"/a/w.pth": ZIP + b"one", "/b/w.pth": ZIP + b"two"}
        assert download(f"{server.url}/a/w.pth").read_bytes() == ZIP + b"one"
        assert download(f"{server.url}/b/w.pth").read_bytes() == ZIP + b"two"

    def test_a_name_that_promises_a_checksum(self, server, tmp_path):
        server.files["/w-00eb2006.pth"] = ZIP + b"something else"
        with pytest.raises(ValueError, match=r"w-00eb2006\.pth' promises another sha256.*not kept"):
            download(f"{server.url}/w-00eb2006.pth")
        assert not list((tmp_path / "cache").rglob("*.p*"))

    def test_a_copy_that_was_damaged_since_is_fetched_again(self, server):
        body = ZIP + b"whole"
        name = f"/w-{hashlib.sha256(body).hexdigest()[:8]}.pth"
        server.files[name] = body
        path = download(server.url + name)
        path.write_bytes(body[:-1])
        assert download(server.url + name).read_bytes() == body
        assert server.asked == [name, name]

    def test_a_date_promises_nothing(self, server):
        server.files["/w-20211019.pth"] = ZIP
        assert download(f"{server.url}/w-20211019.pth").read_bytes() == ZIP

    @pytest.mark.parametrize("body", [b"<html>sign in</html>", b'{"error": 1}', b"", b"version https://git-lfs"])
    def test_what_is_no_weight_file_is_not_kept(self, server, tmp_path, body):
        server.files["/w.pth"] = body
        with pytest.raises(ValueError, match="no weight file .*not kept"):
            download(f"{server.url}/w.pth")
        assert not list((tmp_path / "cache").rglob("*.p*"))

    @pytest.mark.parametrize("said", [True, False])
    def test_too_large(self, server, tmp_path, monkeypatch, said):
        server.files["/w.pth"], server.says_length = ZIP + bytes(20_000), said
        monkeypatch.setenv("FACELM_DOWNLOAD_MB", "0.01")
        with pytest.raises(ConnectionError, match="larger than 0.01 MB; FACELM_DOWNLOAD_MB="):
            download(f"{server.url}/w.pth")
        assert not list((tmp_path / "cache").rglob("*.p*"))
        monkeypatch.setenv("FACELM_DOWNLOAD_MB", "1")
        assert download(f"{server.url}/w.pth").stat().st_size == 20_004

    def test_too_slow(self, server, monkeypatch):
        server.files["/w.pth"], server.pause = ZIP + bytes(3000), 0.05
        monkeypatch.setenv("FACELM_DOWNLOAD_MINUTES", "0.003")
        with pytest.raises(ConnectionError, match="longer than 0.003 minutes; FACELM_DOWNLOAD_MINUTES="):
            download(f"{server.url}/w.pth")

    def test_a_limit_that_is_none(self, server, monkeypatch):
        monkeypatch.setenv("FACELM_DOWNLOAD_MB", "much")
        with pytest.raises(ValueError, match="FACELM_DOWNLOAD_MB='much' is no number above 0"):
            download(f"{server.url}/w.pth")

    @pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/w.pth"])
    def test_a_redirect_elsewhere(self, server, to):
        server.redirects["/w.pth"] = to
        with pytest.raises(ConnectionError, match="redirect"):
            download(f"{server.url}/w.pth")

    def test_every_redirect_is_looked_at(self, server, monkeypatch):
        server.redirects["/w.pth"], server.files["/b.pth"] = f"{server.url}/b.pth", ZIP
        monkeypatch.setattr("facelm.models.fetch._is_private", lambda address: address.path == "/b.pth")
        with pytest.raises(ConnectionError, match="private address"):
            download(f"{server.url}/w.pth")
        assert server.asked == ["/w.pth"]

    def test_a_redirect_of_the_same_kind_is_followed(self, server):
        server.redirects["/w.pth"], server.files["/b.pth"] = f"{server.url}/b.pth", ZIP
        assert download(f"{server.url}/w.pth").read_bytes() == ZIP

    def test_keys_in_an_address_are_said_to_its_server_only(self, server, caplog):
        net = tiny(1)
        address = f"{server.url}/none.pth?X-Amz-Signature=s3cr3t".replace("http://", "http://me:t0k3n@")
        with caplog.at_level(logging.INFO), pytest.raises(ConnectionError) as error:
            load_weights(net, address)
        assert server.asked == ["/none.pth?X-Amz-Signature=s3cr3t"]
        assert server.authorized == ["Basic " + base64.b64encode(b"me:t0k3n").decode()]
        said = caplog.text + str(error.value)
        assert "none.pth" in said
        assert not {"s3cr3t", "t0k3n"} & set(re.findall(r"\w+", said))

    def test_not_there(self, server, tmp_path):
        with pytest.raises(ConnectionError, match=r"could not download .*404.*model\.weights=null"):
            build_model("hrnetv2_tiny", weights=f"{server.url}/none.pth")
        assert not list((tmp_path / "cache").rglob("*.p*"))

    def test_cut_off(self, server, tmp_path):
        server.files["/w.pth"], server.short = ZIP + b"half", 4
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


class TestRedirects:
    """Of addresses that no test may ask."""

    def follow(self, first, to):
        request = urllib.request.Request(first)
        return _CarefulRedirects(first).redirect_request(request, None, 302, "Found", {}, to)

    @pytest.mark.parametrize(
        ("first", "to"),
        [
            ("https://8.8.8.8/w", "http://8.8.8.8/w"),
            ("https://8.8.8.8/w", "https://127.0.0.1/w"),
            ("https://8.8.8.8/w", "https://localhost/w"),
            ("http://8.8.8.8/w", "http://192.168.1.1/w"),
            ("http://8.8.8.8/w", "http://169.254.169.254/latest/meta-data"),
            ("http://8.8.8.8/w", "http://[::1]/w"),
            ("http://8.8.8.8/w", "http://[::ffff:127.0.0.1]/w"),
            ("http://8.8.8.8/w", "file:///etc/passwd"),
        ],
    )
    def test_refused(self, first, to):
        with pytest.raises(OSError, match="it is redirected to"):
            self.follow(first, to)

    @pytest.mark.parametrize(
        ("first", "to"),
        [("https://8.8.8.8/w", "https://8.8.4.4/x"), ("http://127.0.0.1/w", "http://127.0.0.1/x")],
    )
    def test_followed(self, first, to):
        assert urlsplit(self.follow(first, to).full_url) == urlsplit(to)
