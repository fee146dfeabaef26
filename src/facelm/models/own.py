"""Networks of the user's own: any `torch.nn.Module` from images `[B, 3, S, S]` to heatmaps `[B, K, S/4, S/4]`.

A checkpoint keeps the class path of such a network and its arguments, plain values, as a record. Nothing here reads it
from a file and imports it: whoever loads the weights names the class again, see `named`.
"""

from __future__ import annotations

import copy
import inspect
import os
import re
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from facelm import checked

Network = type[nn.Module]

CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
"""`package.module.Class`; the names of facelm's own networks have no dot."""


def named(path: str | None) -> Network | None:
    """The class `package.module.Class` that somebody typed now; None where nothing was typed.

    It is imported from what is installed, or from the current folder.

    Raises:
        ValueError: there is none such, or it is no `torch.nn.Module`.
    """
    if path is None:
        return None
    module, _, name = str(path).rpartition(".")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # which `python -m` looks in too, and the command `facelm` does not
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"no network {path!r} ({error}). Name a class as package.module.Class, of what is installed or lies in the "
            "current folder"
        ) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"{path} is no network: a class that inherits from torch.nn.Module is needed")
    return found


def path_of(network: Network) -> str:
    """`package.module.Class`."""
    return f"{network.__module__}.{network.__qualname__}"


def takes(network: Network) -> set[str]:
    """The names of the arguments of a network's constructor."""
    return set(inspect.signature(network).parameters)


def plain_arguments(arguments: object) -> dict[str, Any]:
    """A copy of a constructor's arguments, which a checkpoint can keep: plain values under plain names.

    Raises:
        ValueError: something else is in them, or describes an object (`_target_`).
    """
    found = checked.mapping(checked.plain(arguments, "the network's arguments (model)"), "the network's arguments")
    if described := _described(found):
        raise ValueError(
            f"the network's argument {described!r} describes an object, which a checkpoint cannot keep: give plain "
            "values, and let the network's class make the object of them"
        )
    return found


def _described(value: object, name: str = "model") -> str | None:
    """The first key of nested plain values that is one of Hydra's own, such as `_target_`, dotted."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        if str(key).startswith("_"):
            return f"{name}.{key}"
        if found := _described(part, f"{name}.{key}"):
            return found
    return None


def build(network: Network, arguments: Mapping[str, Any], num_landmarks: int, crop_size: int) -> nn.Module:
    """The network, untrained, whose heatmaps have been seen to be `[1, num_landmarks, crop_size / 4, crop_size / 4]`.

    It is told `num_landmarks` if it has an argument of that name.

    Raises:
        ValueError: it cannot be made with these arguments, does not take an image, or gives something else.
    """
    given = copy.deepcopy(dict(arguments))
    if "num_landmarks" in takes(network):
        given["num_landmarks"] = num_landmarks
    try:
        net = network(**given)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError, MemoryError) as error:
        raise ValueError(
            f"the network {path_of(network)} cannot be made with {checked.shown(given)} ({error}). +model.KEY=VALUE "
            "gives an argument, ~model.KEY takes it away"
        ) from error
    _require_heatmaps(net, num_landmarks, crop_size)
    return net


def _require_heatmaps(net: nn.Module, num_landmarks: int, crop_size: int) -> None:
    first = next(net.parameters(), torch.zeros(0))
    image = torch.zeros(1, 3, crop_size, crop_size, dtype=first.dtype, device=first.device)
    modes = [(module, module.training) for module in net.modules()]
    try:
        with torch.no_grad():
            heatmaps = net.eval()(image)
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
        raise ValueError(
            f"the network {path_of(type(net))} cannot take an image {list(image.shape)}: {error}"
        ) from error
    finally:
        for module, mode in modes:
            module.training = mode
    expected = [1, num_landmarks, crop_size // 4, crop_size // 4]
    got = list(heatmaps.shape) if isinstance(heatmaps, Tensor) else f"a {type(heatmaps).__name__}"
    if got != expected:
        raise ValueError(
            f"the network {path_of(type(net))} gives {got} for an image {list(image.shape)}; heatmaps {expected} are "
            "needed, one for each landmark at a quarter of the resolution"
        )


def require_same_state(net: nn.Module, again: nn.Module) -> None:
    """Refuses a network whose weights would not fit into `again`, the one made of what its checkpoint will say.

    Raises:
        ValueError: they differ in names or shapes, or hold something that is no tensor.
    """
    ours, theirs = ({name: _shape(value) for name, value in one.state_dict().items()} for one in (net, again))
    name = path_of(type(net))
    if other := [key for key, shape in ours.items() if shape is None]:
        raise ValueError(f"{other[0]} in the state of the network {name} is no tensor, so no checkpoint can keep it")
    if differ := sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)):
        raise ValueError(
            f"the network {name} could not be loaded again: made of its arguments, {', '.join(differ[:4])} would be "
            "others. ModelSpec(architecture='package.module.Class', arguments={...}) needs them all, as plain values"
        )


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None
