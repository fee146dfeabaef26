"""Where the configs are: in the checkout if there is one, else inside the installed package."""

from __future__ import annotations

from pathlib import Path


def conf_dir() -> Path:
    """The folder of configs.

    Raises:
        FileNotFoundError: neither the checkout nor the package holds it.
    """
    package = Path(__file__).resolve().parent
    checkout = package.parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf" / "train.yaml").is_file():
        return checkout / "conf"
    if (package / "conf" / "train.yaml").is_file():
        return package / "conf"
    raise FileNotFoundError(f"no configs in {checkout / 'conf'} or {package / 'conf'}: the installation is incomplete")


CONF_DIR = conf_dir()
