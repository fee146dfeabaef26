"""Networks small enough for a test, what they make of one input, and their weights in the files of others."""

from __future__ import annotations

import torch

from facelm.models import HRNetV2, build_model


def tiny(seed=0, num_landmarks=68) -> HRNetV2:
    """A network whose every number differs from a new one's, running statistics and all."""
    torch.manual_seed(seed)
    net = build_model("hrnetv2_tiny", num_landmarks, init="kaiming")
    for buffer in net.buffers():
        buffer.add_(1 + torch.rand(buffer.shape) if buffer.is_floating_point() else 5)
    return net.eval()


def heatmaps(net):
    with torch.no_grad():
        return net(torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64))


def as_written_by(naming, net):
    """A checkpoint as the named code base writes it; spelled out here, apart from the table in weights.py."""
    state = net.state_dict()
    body = {key: value for key, value in state.items() if not key.startswith("head.")}
    head = {key: value for key, value in state.items() if key.startswith("head.")}
    if naming == "hrnet":
        return state
    if naming == "facelm":
        return {"epoch": 3, "state_dict": {f"net.{key}": value for key, value in state.items()} | {"loss.scale": head}}
    if naming == "timm":
        return body | {"incre_modules.0.0.conv1.weight": torch.ones(3), "classifier.weight": torch.ones(2)}
    named = {f"backbone.{key}": value for key, value in body.items()}
    for key, value in head.items():
        layer, rest = key.split(".")[1:]
        if naming == "mmpose-0.x":
            named[f"keypoint_head.final_layer.{layer}.{rest}"] = value
        else:
            named[f"head.final_layer.{rest}" if layer == "3" else f"head.conv_layers.{layer}.{rest}"] = value
    return {"meta": {"epoch": 60}, "state_dict": named}
