"""mmpose's side of compare_mmpose.py: started by it, in mmpose's own environment. Imports nothing of facelm.

Reads lines of JSON ("load", "heatmaps", "forward", "predict", "train"), answers with a line of JSON each.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch


def put_stubs() -> None:
    """What mmpose 1.3.2 imports on the way to HRNet and this configuration never calls."""
    operations = types.ModuleType("mmcv.ops")
    operations.__getattr__ = lambda name: MagicMock(name=name)  # type: ignore[method-assign]
    sys.modules["mmcv.ops"] = operations
    # torchvision too: it is there only where its build fits torch, and only drawing needs it.
    stubbed = ("mmdet", "mmdet.utils", "mmdet.models", "mmdet.datasets", "mmdet.structures")
    for name in (*stubbed, "torchvision", "torchvision.transforms"):
        module = types.ModuleType(name)
        module.__getattr__ = lambda attribute: MagicMock(name=attribute)  # type: ignore[method-assign]
        module.__version__ = "3.2.0"  # type: ignore[attr-defined]
        sys.modules.setdefault(name, module)


def build(network: dict[str, Any]) -> torch.nn.Module:
    """The TopdownPoseEstimator of td-hm_hrnetv2-w18, with these channels."""
    import mmpose.codecs
    import mmpose.models  # noqa: F401 (registers)
    from mmengine.registry import init_default_scope
    from mmpose.registry import MODELS

    init_default_scope("mmpose")
    c, modules, blocks = network["channels"], network["modules"], network["blocks"]
    stages: dict[str, Any] = {
        "stage1": {
            "num_modules": 1,
            "num_branches": 1,
            "block": "BOTTLENECK",
            "num_blocks": (network["stem_blocks"],),
            "num_channels": (64,),
        }
    }
    for i in range(3):
        stages[f"stage{i + 2}"] = {
            "num_modules": modules[i],
            "num_branches": i + 2,
            "block": "BASIC",
            "num_blocks": (blocks,) * (i + 2),
            "num_channels": tuple(c[: i + 2]),
        }
    stages["stage4"]["multiscale_output"] = True
    stages["upsample"] = {"mode": "bilinear", "align_corners": False}
    codec = {"type": "MSRAHeatmap", "input_size": (256, 256), "heatmap_size": (64, 64), "sigma": 1.5}
    config = {
        "type": "TopdownPoseEstimator",
        "data_preprocessor": None,
        "backbone": {"type": "HRNet", "in_channels": 3, "extra": stages},
        "neck": {"type": "FeatureMapProcessor", "concat": True},
        "head": {
            "type": "HeatmapHead",
            "in_channels": sum(c),
            "out_channels": network["landmarks"],
            "deconv_out_channels": None,
            "conv_out_channels": (sum(c),),
            "conv_kernel_sizes": (1,),
            "loss": {"type": "KeypointMSELoss", "use_target_weight": True},
            "decoder": codec,
        },
        "test_cfg": {"flip_test": True, "flip_mode": "heatmap", "shift_heatmap": True},
    }
    return MODELS.build(config)


class Side:
    """The network, the data, and the tasks."""

    def load(self, folder: str) -> dict[str, Any]:
        """Reads network, weights and batch."""
        where = Path(folder)
        network = json.loads((where / "network.json").read_text())
        self.net = build(network)
        state = torch.load(where / "weights.pth", map_location="cpu", weights_only=True)["state_dict"]
        self.net.load_state_dict(state)
        self.inputs = torch.from_numpy(np.load(where / "inputs.npy"))
        self.landmarks = np.load(where / "landmarks.npy")
        self.adam = torch.optim.Adam(self.net.parameters(), lr=1e-4)
        self.samples = [self._sample(i) for i in range(len(self.inputs))]
        return {}

    def _sample(self, index: int) -> Any:
        from mmengine.structures import InstanceData, PixelData
        from mmpose.codecs import MSRAHeatmap
        from mmpose.structures import PoseDataSample

        codec = MSRAHeatmap(input_size=(256, 256), heatmap_size=(64, 64), sigma=1.5)
        encoded = codec.encode(self.landmarks[index : index + 1])
        sample = PoseDataSample()
        sample.set_metainfo(
            {
                "input_size": (256, 256),
                "input_center": np.array([128.0, 128.0]),
                "input_scale": np.array([256.0, 256.0]),
                "flip_indices": list(range(self.landmarks.shape[1])),
                "dataset_name": "300w",
            }
        )
        sample.gt_fields = PixelData(heatmaps=torch.from_numpy(encoded["heatmaps"]))
        sample.gt_instance_labels = InstanceData(keypoint_weights=torch.from_numpy(encoded["keypoint_weights"]))
        sample.gt_instances = InstanceData(
            bboxes=np.array([[0.0, 0.0, 256.0, 256.0]]),
            bbox_scores=np.ones(1, np.float32),
            keypoints=self.landmarks[index : index + 1],
        )
        return sample

    def heatmaps(self, folder: str) -> dict[str, Any]:
        """Writes what the network says of the batch."""
        self.net.eval()
        with torch.inference_mode():
            found = self.net._forward(self.inputs)
        np.save(Path(folder) / "theirs.npy", found.numpy())
        return {"file": str(Path(folder) / "theirs.npy")}

    def forward(self) -> dict[str, Any]:
        """One forward."""
        self.net.eval()
        with torch.inference_mode():
            self.net._forward(self.inputs)
        return {}

    def predict(self) -> dict[str, Any]:
        """Predict with the flip test, to image coordinates."""
        self.net.eval()
        with torch.inference_mode():
            self.net.predict(self.inputs, self.samples)
        return {}

    def train(self) -> dict[str, Any]:
        """One training step."""
        self.net.train()
        losses = self.net.loss(self.inputs, self.samples)
        losses["loss_kpt"].backward()
        self.adam.step()
        self.adam.zero_grad()
        return {}


def main() -> None:
    """Answers until the input ends."""
    put_stubs()
    side = Side()
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(side, request.pop("task"))(**request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
