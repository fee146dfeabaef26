"""HRNetV2 with a heatmap head: images `[B, 3, S, S]` to heatmaps `[B, K, S/4, S/4]`, for any S divisible by 32.

Four branches at 1/4, 1/8, 1/16 and 1/32 of the input run side by side and exchange what they know after every few
blocks; the head sees all four, brought to the finest resolution. Read it in this order: `HRNetV2`, `ExchangeModule`,
`FuseLayer`, the blocks.

Parameter names are those of the HRNet authors' release, in the same order (1,839 keys for W18); other namings are
translated in `facelm.models.weights`. With equal weights the heatmaps are those of mmpose and of the authors' code.
Sources: Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", TPAMI 2020;
HRNet-Facial-Landmark-Detection, lib/models/hrnet.py; mmpose, mmpose/models/backbones/hrnet.py.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facelm.checked import now_called


@dataclass(frozen=True)
class HRNetConfig:
    """The sizes that tell one HRNetV2 from another.

    `channels` are those of the four branches, finest first; `modules` counts the exchange modules of stages 2, 3 and
    4; `blocks` the residual blocks of a branch in a module; `stem` and `stem_blocks` describe what comes before.
    """

    channels: tuple[int, int, int, int]
    modules: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4
    stem: int = 64
    stem_blocks: int = 4


ARCHITECTURES = {
    "hrnetv2_w18": HRNetConfig(channels=(18, 36, 72, 144)),
    "hrnetv2_w32": HRNetConfig(channels=(32, 64, 128, 256)),
    "hrnetv2_w48": HRNetConfig(channels=(48, 96, 192, 384)),
    "hrnetv2_w64": HRNetConfig(channels=(64, 128, 256, 512)),
    # For tests: the same topology with 83,400 parameters.
    "hrnetv2_tiny": HRNetConfig(channels=(8, 12, 16, 24), modules=(1, 1, 1), blocks=1, stem=16, stem_blocks=1),
}


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size (at stride 1) and has no bias: a batch norm follows."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def conv_norm_relu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution, batch norm and ReLU."""
    return nn.Sequential(conv(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut: the block of every branch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` -> `[B, C, H, W]`."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + x, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions to 4 `planes` channels around a shortcut: the block of the stem."""

    def __init__(self, inputs: int, planes: int) -> None:
        super().__init__()
        outputs = 4 * planes
        self.conv1 = conv(inputs, planes, kernel=1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = conv(planes, outputs, kernel=1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()  # the authors' name; it changes the channels, not the size
        if inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, kernel=1), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W]` -> `[B, 4 * planes, H, W]`."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x), inplace=True)


class FuseLayer(nn.ModuleList):
    """The new content of branch `target`: the sum of all branches, each brought to its channels and resolution.

    A coarser branch passes a 1x1 convolution and is enlarged bilinearly, a finer one passes a 3x3 convolution of
    stride 2 per halving, the branch itself is taken as it is.
    """

    def __init__(self, channels: Sequence[int], target: int) -> None:
        super().__init__([self._path(channels, source, target) for source in range(len(channels))])

    @staticmethod
    def _path(channels: Sequence[int], source: int, target: int) -> nn.Module:
        inputs, outputs = channels[source], channels[target]
        if source == target:
            return nn.Identity()
        if source > target:
            # align_corners=False, as both references; the ImageNet HRNets used "nearest" here (see weights.py).
            enlarge = nn.Upsample(scale_factor=2 ** (source - target), mode="bilinear", align_corners=False)
            return nn.Sequential(conv(inputs, outputs, kernel=1), nn.BatchNorm2d(outputs), enlarge)
        halvings: list[nn.Module] = [conv_norm_relu(inputs, inputs, stride=2) for _ in range(target - source - 1)]
        return nn.Sequential(*halvings, nn.Sequential(conv(inputs, outputs, stride=2), nn.BatchNorm2d(outputs)))

    def forward(self, branches: Sequence[Tensor]) -> Tensor:
        """All branches -> the target branch `[B, C, H, W]`."""
        first, *others = (path(branch) for path, branch in zip(self, branches, strict=True))
        total: Tensor = first
        for other in others:
            total = total + other
        return F.relu(total, inplace=True)


class ExchangeModule(nn.Module):
    """Residual blocks on every branch, then every branch hears from all the others."""

    def __init__(self, channels: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*[BasicBlock(c) for _ in range(blocks)]) for c in channels)
        self.fuse_layers = nn.ModuleList(FuseLayer(channels, target) for target in range(len(channels)))

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Branches, finest first -> the same branches, shapes unchanged."""
        branches = [blocks(branch) for blocks, branch in zip(self.branches, inputs, strict=True)]
        return [fuse(branches) for fuse in self.fuse_layers]


class HRNetV2(nn.Module):
    """Heatmaps of `num_landmarks` landmarks at a quarter of the input's resolution.

    `bn_momentum` is torch's: the weight of the newest batch in the running statistics (mmpose 0.1, the authors 0.01).
    A new network holds torch's default initialisation; see `initialise`.
    """

    stride = 4

    def __init__(self, config: HRNetConfig, num_landmarks: int, *, bn_momentum: float = 0.1) -> None:
        super().__init__()
        self.config = config
        self.num_landmarks = num_landmarks
        c, stem = config.channels, config.stem
        wide = 4 * stem

        self.conv1 = conv(3, stem, stride=2)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = conv(stem, stem, stride=2)
        self.bn2 = nn.BatchNorm2d(stem)
        inputs = [stem] + [wide] * (config.stem_blocks - 1)
        self.layer1 = nn.Sequential(*[Bottleneck(n, stem) for n in inputs])

        # A transition makes the next stage's branches from this stage's and adds one of half the resolution.
        self.transition1 = nn.ModuleList(
            [conv_norm_relu(wide, c[0]), nn.Sequential(conv_norm_relu(wide, c[1], stride=2))]
        )
        self.stage2 = self._stage(branches=2)
        self.transition2 = self._new_branch(2)
        self.stage3 = self._stage(branches=3)
        self.transition3 = self._new_branch(3)
        self.stage4 = self._stage(branches=4)

        features = sum(c)
        self.head = nn.Sequential(
            nn.Conv2d(features, features, 1),
            nn.BatchNorm2d(features),
            nn.ReLU(inplace=True),
            nn.Conv2d(features, num_landmarks, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = bn_momentum

    def _stage(self, branches: int) -> nn.Sequential:
        channels, blocks = self.config.channels[:branches], self.config.blocks
        return nn.Sequential(*[ExchangeModule(channels, blocks) for _ in range(self.config.modules[branches - 2])])

    def _new_branch(self, index: int) -> nn.ModuleList:
        c = self.config.channels
        new = nn.Sequential(conv_norm_relu(c[index - 1], c[index], stride=2))
        return nn.ModuleList([*(nn.Identity() for _ in range(index)), new])

    def features(self, images: Tensor) -> list[Tensor]:
        """Normalised images `[B, 3, H, W]` -> the four branches `[B, C_i, H / (4 * 2^i), W / (4 * 2^i)]`.

        Raises: ValueError for a height or width that is not a multiple of 32.
        """
        if images.shape[-2] % 32 or images.shape[-1] % 32:
            raise ValueError(
                f"HRNetV2 halves its input five times: height and width must be multiples of 32, got "
                f"{tuple(images.shape[-2:])}. Set crop.size to a multiple of 32, such as 128 or 256."
            )
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.layer1(x)
        branches = [path(x) for path in self.transition1]
        branches = self.stage2(branches)
        branches = [path(branch) for path, branch in zip(self.transition2, [*branches, branches[-1]], strict=True)]
        branches = self.stage3(branches)
        branches = [path(branch) for path, branch in zip(self.transition3, [*branches, branches[-1]], strict=True)]
        four: list[Tensor] = self.stage4(branches)
        return four

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images `[B, 3, H, W]` -> heatmaps `[B, K, H/4, W/4]`."""
        finest, *coarser = self.features(images)
        size = finest.shape[-2:]
        enlarged = [F.interpolate(b, size=size, mode="bilinear", align_corners=False) for b in coarser]
        heatmaps: Tensor = self.head(torch.cat([finest, *enlarged], dim=1))
        return heatmaps


def is_hrnet(net: nn.Module) -> TypeGuard[HRNetV2]:
    """Whether `net` is facelm's own `HRNetV2`, and no class made of it, which may compute something else."""
    return isinstance(net, HRNetV2) and type(net).__module__.startswith("facelm.models.")


INITS = ("hrnet", "mmpose", "torch", "kaiming")


def initialise(net: HRNetV2, init: str) -> None:
    """Fills a newly built network as `init` says; batch norms keep weight 1 and bias 0.

    - "hrnet", the HRNet authors': convolutions Normal(0, 0.001); the head's biases keep torch's default, uniform
      within 1 / sqrt(channels).
    - "mmpose", with no pretrained file: convolutions Normal(0, 0.001), the head's biases 0.
    - "torch", mmpose with `init_cfg=None`: torch's default for the backbone, the head as in "mmpose".
    - "kaiming": He's normal by fan-out, the last convolution Normal(0, 0.001), the head's biases 0.

    Raises: ValueError for another name.
    """
    if init not in INITS:
        known = ", ".join(INITS)
        raise ValueError(f"unknown initialisation init={init!r}; choose one of {known}{now_called(init)}")
    for name, module in net.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        in_head = name.startswith("head.")
        if init == "kaiming" and name != "head.3":
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif init != "torch" or in_head:
            nn.init.normal_(module.weight, std=0.001)
        if module.bias is not None and init != "hrnet":
            nn.init.zeros_(module.bias)


def count_macs(net: nn.Module, crop_size: int) -> int:
    """Multiply-adds of one image's convolutions (4.66e9 for W18 at 256); twice that in floating point operations."""
    total = 0

    def add(module: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    # Shapes without numbers: nothing is computed. A network that is not ours may make tensors, on the CPU.
    device = "meta" if is_hrnet(net) else "cpu"
    shadow = copy.deepcopy(net).to(device).eval()
    for module in shadow.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    with torch.no_grad():
        shadow(torch.empty(1, 3, crop_size, crop_size, device=device))
    return total
