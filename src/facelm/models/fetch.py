"""One file from an address: over http(s) alone, within limits, and to nowhere that the address did not say.

A redirect goes neither from https to http, nor from the internet to this machine or its network: an address that
somebody passed on may not ask what only this machine can ask.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import socket
import time
import urllib.request
from http.client import HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import SplitResult, unquote, urlsplit

from facelm.addresses import public

_SILENCE_SECONDS = 30.0  # without an answer; not for the whole file
_CHUNK = 2**18

MEGABYTES, MINUTES = "FACELM_DOWNLOAD_MB", "FACELM_DOWNLOAD_MINUTES"
_LIMITS = {MEGABYTES: 2000.0, MINUTES: 60.0}


def limit(name: str) -> float:
    """The limit of MEGABYTES or MINUTES: that environment variable, or else the usual one.

    Raises:
        ValueError: the variable holds no number above 0.
    """
    said = os.environ.get(name)
    try:
        value = float(said) if said else _LIMITS[name]
    except ValueError:
        value = -1.0
    if not value > 0:
        raise ValueError(f"{name}={said!r} is no number above 0")
    return value


def fetch(url: str, path: Path) -> None:
    """Writes what lies at `url` to `path`.

    Raises:
        OSError: nobody answers, the answer breaks off, is larger or slower than the limits, or leads elsewhere.
        http.client.HTTPException: the answer is none.
        ValueError: the address cannot be one.
    """
    plain, headers = _without_user(url)
    request = urllib.request.Request(plain, headers={"User-Agent": "facelm"})
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    opener = urllib.request.build_opener(_CarefulRedirects(plain))
    most, seconds = limit(MEGABYTES) * 1e6, limit(MINUTES) * 60
    end = time.monotonic() + seconds
    with opener.open(request, timeout=min(_SILENCE_SECONDS, seconds)) as answer, path.open("wb") as file:
        expected = answer.headers.get("Content-Length")
        size = int(expected) if expected is not None and expected.isdecimal() else None
        while part := answer.read1(_CHUNK):
            file.write(part)
            if max(size or 0, file.tell()) > most:
                raise OSError(f"it is larger than {most / 1e6:g} MB; {MEGABYTES}=NUMBER sets another limit")
            if time.monotonic() > end:
                raise OSError(f"it took longer than {seconds / 60:g} minutes; {MINUTES}=NUMBER sets another limit")
        got = file.tell()
    if size is not None and size != got:
        raise ConnectionError(f"{got} of {size} bytes arrived")


def _without_user(url: str) -> tuple[str, dict[str, str]]:
    """The address without user and password, and the header that says them."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    said = base64.b64encode(unquote(user).encode()).decode()
    return parts._replace(netloc=host, fragment="").geturl(), {"Authorization": f"Basic {said}"} if at else {}


class _CarefulRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only where the first address may lead."""

    def __init__(self, first: str) -> None:
        self._first = urlsplit(first)

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """The request for `newurl`; raises OSError where it leads elsewhere."""
        to = urlsplit(newurl)
        if to.scheme != "https" and (to.scheme != "http" or urlsplit(req.full_url).scheme == "https"):
            raise OSError(f"it is redirected to {public(newurl)!r}, which is not https")
        if _is_private(to) and not _is_private(self._first):
            raise OSError(f"it is redirected to {public(newurl)!r}, which is a private address of this network")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_private(address: SplitResult) -> bool:
    """Whether any of the machines that a name stands for is not of the internet."""
    try:
        found = socket.getaddrinfo(address.hostname, address.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the request itself will say so
        return False
    return any(not ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_global for one in found)
