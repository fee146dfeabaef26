"""Devices by name."""

from __future__ import annotations

import torch


def pick_device(device: str | torch.device) -> torch.device:
    """The device of that name; "auto" is the first GPU, or the CPU where there is none.

    Raises:
        ValueError: no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={str(device)!r} is not to be had here ({error}). Use auto or cpu") from error
    return found
