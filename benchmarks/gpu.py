"""Training on one GPU: images a second and the time of the whole schedule, each optimisation added in turn.

python -m benchmarks.gpu [--batch 64] [--output benchmarks/results/gpu.md]

Needs torch, numpy and safetensors only (it imports facelm's lower layers), so it runs where hydra, albumentations or
wandb are missing: PYTHONPATH=src python -m benchmarks.gpu. The crops and landmarks are drawn at random and lie in
pinned memory, as a warm crop cache's do; every step copies its batch to the GPU as uint8. "60 epochs" is computed from
the measured steps: 3,148 faces an epoch and a validation of 689 with the flip test. Compiling is timed apart.

The floors: arithmetic, three forwards' worth of multiply-adds at the peak given by --peak-tflops (default: by the
device's name, dense, of the number type in use); memory, each of the activations written and read once forward and
twice backward at --bandwidth GB/s. On a CPU the same script runs tiny, which is how it is tested.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from facelm.codec import build_codec
from facelm.geometry.landmarks import IBUG68
from facelm.models import build_model, count_macs
from facelm.models.hrnet import HRNetV2
from facelm.models.inference import normalise, predict_landmarks
from facelm.training.losses import HeatmapMSE

FACES, VALIDATION, EPOCHS = 3148, 689, 60

# Dense TFLOP/s of the data sheets, without sparsity: (fp32, tf32, bf16); and GB/s.
PEAKS = {
    "H100": ((67.0, 495.0, 990.0), 3350.0),
    "H200": ((67.0, 495.0, 990.0), 4800.0),
    "A100": ((19.5, 156.0, 312.0), 2039.0),
}


@dataclass(frozen=True)
class Setting:
    """One row: what is switched on."""

    name: str
    channels_last: bool = False
    tf32: bool = False
    fused_adam: bool = False
    bf16: bool = False
    compiled: str | None = None  # torch.compile's mode

    @property
    def numbers(self) -> int:
        """Which of the peaks bounds it."""
        return 2 if self.bf16 else 1 if self.tf32 else 0


SETTINGS = (
    Setting("fp32 eager, PyTorch's defaults"),
    Setting("+ channels_last", channels_last=True),
    Setting("+ tf32", channels_last=True, tf32=True),
    Setting("+ fused Adam", channels_last=True, tf32=True, fused_adam=True),
    Setting("+ bf16 autocast", channels_last=True, tf32=True, fused_adam=True, bf16=True),
    Setting("+ compile", channels_last=True, tf32=True, fused_adam=True, bf16=True, compiled="default"),
    Setting("+ CUDA graphs", channels_last=True, tf32=True, fused_adam=True, bf16=True, compiled="reduce-overhead"),
)


@dataclass(frozen=True)
class Work:
    """What is run: architecture, crop size, batch size and the drawn crops and landmarks, on the host."""

    architecture: str
    size: int
    crops: Tensor
    landmarks_crop: Tensor
    device: torch.device

    @staticmethod
    def drawn(architecture: str, size: int, batch: int, device: torch.device) -> Work:
        """A batch at random, pinned where there is a GPU."""
        crops = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)
        landmarks_crop = torch.rand(batch, 68, 2) * size
        if device.type == "cuda":
            crops, landmarks_crop = crops.pin_memory(), landmarks_crop.pin_memory()
        return Work(architecture, size, crops, landmarks_crop, device)


@dataclass
class Result:
    """Seconds a step (all of them), seconds a validation batch, first step, peak memory in GB, utilisation in %."""

    steps: list[float]
    validation: float
    first_step: float
    memory: float
    utilisation: str


def prepared(work: Work, setting: Setting) -> HRNetV2:
    """The network as `setting` asks for."""
    torch.backends.cuda.matmul.allow_tf32 = setting.tf32
    # cudnn's own default lets convolutions use tf32: the first rows leave that as PyTorch has it.
    torch.backends.cudnn.benchmark = setting.channels_last
    net = build_model(work.architecture, init="kaiming").to(work.device)
    if setting.channels_last:
        net = net.to(memory_format=torch.channels_last)
    if setting.compiled and work.device.type == "cuda":
        net.compile(mode=setting.compiled, dynamic=False)
    return net


def step_of(work: Work, setting: Setting, net: HRNetV2) -> Callable[[], None]:
    """One training step: copy, normalise, draw heatmaps, forward, loss, backward, Adam."""
    codec, loss = build_codec({"name": "mmpose", "sigma": 1.5}, work.size), HeatmapMSE()
    adam = torch.optim.Adam(net.parameters(), lr=1e-4, fused=setting.fused_adam or None)

    def step() -> None:
        crops = work.crops.to(work.device, non_blocking=True)
        landmarks_crop = work.landmarks_crop.to(work.device, non_blocking=True)
        target, weight = codec.encode(landmarks_crop)
        images = normalise(crops)
        with autocast(work, setting):
            heatmaps = net(images if setting.channels_last else images.contiguous())
        loss(heatmaps, target, weight, landmarks_crop / codec.stride).backward()
        adam.step()
        adam.zero_grad(set_to_none=True)

    return step


def autocast(work: Work, setting: Setting) -> contextlib.AbstractContextManager[object]:
    """bf16 where the setting has it."""
    return torch.autocast(work.device.type, torch.bfloat16) if setting.bf16 else contextlib.nullcontext()


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, to the end of its work."""
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def measure(work: Work, setting: Setting, rounds: int, steps_a_round: int) -> Result:
    """Trains, then validates, and times both."""
    if work.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    net = prepared(work, setting).train()
    step = step_of(work, setting, net)
    first = timed(step, work.device)
    for _ in range(3):
        step()

    def several() -> None:
        for _ in range(steps_a_round):
            step()

    steps = [timed(several, work.device) / steps_a_round for _ in range(rounds)]
    memory = torch.cuda.max_memory_allocated() / 1e9 if work.device.type == "cuda" else 0.0
    used = utilisation(several) if work.device.type == "cuda" else "-"
    return Result(steps, validation_seconds(work, setting, net), first, memory, used)


def validation_seconds(work: Work, setting: Setting, net: nn.Module) -> float:
    """Seconds of one batch's prediction with the flip test."""
    codec = build_codec({"name": "mmpose", "sigma": 1.5}, work.size)
    net.eval()

    @torch.no_grad()
    def predict() -> None:
        images = normalise(work.crops.to(work.device, non_blocking=True))
        with autocast(work, setting):
            predict_landmarks(net, images, codec, IBUG68.mirror, "shifted")

    for _ in range(3):
        predict()
    return statistics.median(timed(predict, work.device) for _ in range(5))


def utilisation(several: Callable[[], None]) -> str:
    """nvidia-smi's GPU utilisation while steps run; "-" where there is no nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return "-"
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        end = time.perf_counter() + 2.0
        while time.perf_counter() < end:
            several()
        torch.cuda.synchronize()
        watch.terminate()
        lines = watch.stdout.read().split() if watch.stdout else []
    values = [int(line) for line in lines if line.isdigit()]
    return f"{statistics.median(values):.0f} %" if values else "-"


def activation_bytes(work: Work, number_bytes: int) -> float:
    """Bytes of an image's activations: the output of every convolution and of every batch norm."""
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += output[0].numel()

    net = build_model(work.architecture).to("meta").eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(add)
    net(torch.empty(1, 3, work.size, work.size, device="meta"))
    return float(total * number_bytes)


def floors(work: Work, setting: Setting, peaks: tuple[float, float, float], bandwidth: float) -> tuple[float, float]:
    """Seconds a step that arithmetic and that memory need at least."""
    batch = len(work.crops)
    operations = 3 * 2 * count_macs(build_model(work.architecture), work.size) * batch
    # Written once and read once forward; read again and its gradient written and read backward.
    moved = 5 * activation_bytes(work, 2 if setting.bf16 else 4) * batch
    return operations / (peaks[setting.numbers] * 1e12), moved / (bandwidth * 1e9)


def table(work: Work, results: dict[Setting, Result], peaks: tuple[float, float, float], bandwidth: float) -> str:
    """The results as Markdown."""
    batch = len(work.crops)
    name = torch.cuda.get_device_name() if work.device.type == "cuda" else "CPU (a test of the script)"
    baseline = statistics.median(next(iter(results.values())).steps)
    lines = [
        f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, {work.architecture}, {work.size} px, batch "
        f"{batch}; peaks {peaks} TFLOP/s (fp32, tf32, bf16), {bandwidth:.0f} GB/s",
        "",
        "| | ms a step | images/s | ratio | arithmetic floor | memory floor | GPU busy | memory | first step "
        "| validation | 60 epochs |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for setting, result in results.items():
        step = statistics.median(result.steps)
        arithmetic, memory = floors(work, setting, peaks, bandwidth)
        validation = result.validation * -(-VALIDATION // batch)
        whole = EPOCHS * (step * -(-FACES // batch) + validation)
        lines.append(
            f"| {setting.name} | {1e3 * step:.1f} | {batch / step:.0f} | {baseline / step:.2f} | "
            f"{1e3 * arithmetic:.1f} ms | {1e3 * memory:.1f} ms | {result.utilisation} | {result.memory:.1f} GB | "
            f"{result.first_step:.1f} s | {validation:.2f} s | {whole:.0f} s |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Prints the table, and writes it where --output says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="training steps in a round")
    parser.add_argument("--quick", action="store_true", help="a tiny network: whether it runs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--peak-tflops", type=float, nargs=3, help="fp32, tf32, bf16")
    parser.add_argument("--bandwidth", type=float, help="GB/s")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    if device.type == "cpu" and not given.quick:
        raise SystemExit("no GPU found; on a CPU only --quick, a test of this script, makes sense")
    architecture, size, batch = ("hrnetv2_tiny", 64, 2) if given.quick else ("hrnetv2_w18", 256, given.batch)
    rounds, steps = (2, 1) if given.quick else (given.rounds, given.steps)
    work = Work.drawn(architecture, size, batch, device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else ""
    peaks, bandwidth = next((peak for key, peak in PEAKS.items() if key in name), ((1.0, 1.0, 1.0), 20.0))
    results = {}
    for setting in SETTINGS:
        results[setting] = measure(work, setting, rounds, steps)
        print(f"{setting.name}: {1e3 * statistics.median(results[setting].steps):.1f} ms a step", flush=True)
    text = table(work, results, tuple(given.peak_tflops or peaks), given.bandwidth or bandwidth)
    print(text)
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
