"""Commands in processes of their own that need not import torch and Lightning anew, which takes four seconds each.

`run(["-m", "facelm.train", ...])` is `subprocess.run([sys.executable, ...], capture_output=True, text=True)` by a
server that has imported them and forks for each command. Arguments, folder, environment, output, signals and end are
the child's own. What depends on how modules are loaded (OpenMP's variables, PYTHONPATH, -O) needs a fresh interpreter.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def run(
    words: Sequence[str | Path], *, cwd: str | Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What `python WORDS` did, where WORDS begin with -m MODULE or with a file."""
    command = [str(word) for word in words]
    place, environment = str(cwd or os.getcwd()), dict(os.environ if env is None else env)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull, "rb") as nothing:
        ends = [nothing.fileno(), out.fileno(), err.fileno()]
        channel = _server()
        socket.send_fds(channel, [json.dumps([command, place, environment]).encode()], ends)
        answer = channel.recv(100)
        if not answer:
            _server.cache_clear()
            raise RuntimeError("the server ended")
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess([sys.executable, *command], int(answer), *texts)


@functools.cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    atexit.register(process.wait)
    atexit.register(ours.close)  # before: then it ends
    return ours


def _serve(channel: socket.socket) -> list[str]:
    """Forks for each request; comes back in the children alone, with their words."""
    while True:
        request, ends, *_ = socket.recv_fds(channel, 2**18, 3)
        if not request:
            os._exit(0)
        if (child := os.fork()) == 0:
            words, place, environment = json.loads(request)
            for number, end in enumerate(ends):
                os.dup2(end, number)
                os.close(end)
            channel.close()
            os.chdir(place)
            os.environ.clear()
            os.environ.update(environment)
            return words
        for end in ends:
            os.close(end)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        channel.send(str(status).encode())


if __name__ == "__main__":
    import albumentations  # noqa: F401 (what every training needs)
    import numpy as np

    import facelm.evaluate
    import facelm.train  # noqa: F401

    gc.collect()
    gc.freeze()
    first, *others = _serve(socket.socket(fileno=int(sys.argv[1])))
    np.random.seed()  # Python's own is seeded anew in every fork
    if first == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = others
        sys.modules.pop(others[0], None)  # it is to be __main__
        runpy._run_module_as_main(others[0])  # what `python -m` calls
    else:
        sys.path[0] = str(Path(first).absolute().parent)
        sys.argv = [first, *others]
        runpy.run_path(first, run_name="__main__")
