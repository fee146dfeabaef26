"""Chromium, driven through a pipe by its own protocol: what a person does on a page, and what it requests."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)

NO_CHROMIUM = "no Chromium here (Debian: apt-get install chromium)"

HERE = ("127.0.0.1", "localhost")


class Browser:
    """A headless Chromium with a profile of its own in `folder`; no name but this machine's can be looked up in it."""

    def __init__(self, folder: Path) -> None:
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        to_browser, write_end = os.pipe()
        read_end, from_browser = os.pipe()
        command = [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
            f"--user-data-dir={folder / 'profile'}", "--disable-background-networking", "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        ]  # fmt: skip

        def ends() -> None:  # Chromium reads from 3 and writes to 4
            first, second = os.dup(to_browser), os.dup(from_browser)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self._process = subprocess.Popen(
            command, preexec_fn=ends, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        self._in, self._out = os.fdopen(write_end, "wb", 0), os.fdopen(read_end, "rb", 0)
        self._rest, self._number, self._events = b"", 0, []
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def send(self, method: str, session: str | None = None, **arguments: Any) -> Any:
        """What Chromium answers; events that come meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments} | (
            {"sessionId": session} if session else {}
        )
        self._in.write(json.dumps(message).encode() + b"\0")
        while (said := self._read()).get("id") != self._number:
            self._events.append(said)
        assert "error" not in said, f"{method}: {said['error']}"
        return said["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = os.read(self._out.fileno(), 1 << 20)
            assert chunk, "Chromium has ended"
            self._rest += chunk
        message, self._rest = self._rest.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    def requests(self) -> list[str]:
        """The address of every request so far."""
        self.send("Browser.getVersion")
        return [
            event["params"]["request"]["url"]
            for event in self._events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def leaving(self) -> list[str]:
        """Those that ask another machine."""
        own = ("data", "blob", "about", "chrome", "devtools")
        parts = [(urlsplit(address), address) for address in self.requests()]
        return [address for part, address in parts if part.scheme not in own and part.hostname not in HERE]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._in.close()
        self._out.close()

    def open(self, address: str, width: int = 1400, height: int = 1000) -> Tab:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Network", "Page", "DOM", "Runtime"):
            tab.send(f"{domain}.enable")
        tab.size(width, height)
        tab.send("Page.navigate", url=address)
        return tab


class Tab:
    """A page, as large as it was opened or `size` said."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session

    def send(self, method: str, **arguments: Any) -> Any:
        return self.browser.send(method, self.session, **arguments)

    def size(self, width: int, height: int, dark: bool = False) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def run(self, script: str) -> Any:
        """The value of an expression; promises are waited for."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> Any:
        """The value of an expression when it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.run(script):
                return found
            time.sleep(0.1)
        shown = self.run("document.body.innerText")
        raise AssertionError(f"not within {seconds} s: {script}\n{shown}")

    def upload(self, selector: str, *paths: Path) -> None:
        """Puts files into an input."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", files=[str(path) for path in paths], nodeId=node)

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        picture = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(picture))


def until(ready: Callable[[], Any], seconds: float = 60) -> Any:
    """What `ready` gives when that is true."""
    end = time.monotonic() + seconds
    while not (found := ready()) and time.monotonic() < end:
        time.sleep(0.1)
    assert found
    return found
