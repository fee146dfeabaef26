"""Whether W&B can be reached from here: answered in seconds, without a prompt, before anything waits for it."""

from __future__ import annotations

import netrc
import os
import ssl
import threading
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

PROBE_SECONDS = 5.0


def offline_because(base_url: str, seconds: float = PROBE_SECONDS) -> str:
    """Why a run has to be offline, in words; empty if there is a key and the server answers within `seconds`."""
    if not has_key(base_url):
        return "no key; WANDB_API_KEY or `wandb login` gives one"
    if not answers(base_url, seconds):
        return f"{base_url} does not answer"
    return ""


def has_key(base_url: str) -> bool:
    """Whether wandb will find credentials for this server: in the environment, or in a netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    named = os.environ.get("NETRC")
    for path in [Path(named).expanduser()] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        if path.is_file():
            try:
                found = netrc.netrc(path).authenticators(urlsplit(base_url).netloc)
            except (OSError, netrc.NetrcParseError):
                return False
            return bool(found and found[2])
    return False


def answers(base_url: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether an HTTP server answers there within `seconds`, with whatever status."""
    outcome: list[bool] = []
    probe = threading.Thread(target=lambda: outcome.append(_ask(base_url, seconds)), daemon=True)
    # In a thread: looking up the name has no time limit of its own, and takes long on machines without a network.
    probe.start()
    probe.join(seconds)
    return outcome == [True]


def _ask(base_url: str, seconds: float) -> bool:
    # Nothing is sent or believed, so a certificate that Python does not know is no reason to call the server absent.
    lenient = ssl.create_default_context()
    lenient.check_hostname = False
    lenient.verify_mode = ssl.CERT_NONE
    try:
        with urlopen(Request(base_url, method="HEAD"), timeout=seconds, context=lenient):
            return True
    except HTTPError:
        return True
    except (OSError, ValueError, HTTPException):
        return False
