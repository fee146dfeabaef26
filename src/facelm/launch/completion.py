"""Shell completion: `eval "$(facelm -sc install=bash)"`, then TAB after `facelm`, `facelm train`, `facelm evaluate`.

Hydra completes the arguments of a program, and knows no commands: the first word is completed here, and for what
follows it Hydra is asked as if the job were a program of its own. Nothing that takes seconds is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO

import hydra
from omegaconf import DictConfig, OmegaConf

from facelm.launch.paths import CONF_DIR

CONFIGS = {"train": "train", "resume": "train", "evaluate": "evaluate"}
"""The config whose keys complete each command."""


def complete(arguments: Sequence[str], commands: Sequence[str]) -> int:
    """Answers `-sc query=SHELL` for the line in COMP_LINE, `-sc install=SHELL` and `-sc uninstall=SHELL`.

    Returns the exit code, 0.
    """
    words = os.environ.get("COMP_LINE", "").lstrip().split(maxsplit=2)
    config = "train"
    if any(one.startswith("query=") for one in arguments):
        if len(words) < 2 or (len(words) == 2 and not os.environ["COMP_LINE"][-1].isspace()):
            print(" ".join(name for name in commands if name.startswith("".join(words[1:]))))
            return 0
        if words[1] not in CONFIGS:
            return 0
        config = CONFIGS[words[1]]
        rest = words[2] if len(words) == 3 else ""
        run, space, overrides = rest.partition(" ")
        if words[1] == "resume" and space and "=" not in run:  # the run, which is no override
            rest = overrides
        os.environ["COMP_LINE"] = f"{words[0]} {rest}"
    sys.argv = ["facelm", *arguments]
    _ask_hydra(config)
    return 0


def _ask_hydra(config: str) -> None:
    for name in ("facelm.new_folder", "facelm.run_dir"):  # TAB after hydra.run.dir= makes no folder
        OmegaConf.register_new_resolver(name, lambda *path: path[-1], replace=True)

    @hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config)
    def job(_: DictConfig) -> None: ...

    try:
        with redirect_stderr(StringIO()):  # on a line that is still being typed
            job()
    except SystemExit:
        pass
