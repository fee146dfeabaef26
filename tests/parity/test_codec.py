"""Codecs against mmpose's MSRAHeatmap (plain and DARK) and the HRNet authors' targets and predictions.

The sigmas and kernels are those that the arrays are named after.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facelm.codec import Codec, DarkCodec, HRNetCodec, MMPoseCodec, SubpixelCodec
from facelm.codec.dark import newton_steps
from facelm.codec.gaussians import draw_windows
from facelm.codec.peaks import first_peaks


def found(arrays: Any, pattern: str, fallback: str) -> list[tuple[str, str]]:
    """(array name, first group) of every array that matches; the fallback's absence is then the reason to skip."""
    names = [(name, match[1]) for name in arrays if (match := re.fullmatch(pattern, name))]
    return names or [(fallback, str(arrays[fallback]))]


def points_of(arrays: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(arrays["enc_keypoints"]), torch.from_numpy(arrays["enc_visible"])


def crop_size(heatmaps: np.ndarray) -> int:
    return 4 * heatmaps.shape[-1]


def agree_maps(agree: Any, what: str, actual: Tensor, expected: np.ndarray, **bound: float) -> None:
    """Values within the bound; peaks and, for windows, the cells that are drawn exactly."""
    agree(f"{what}, values", actual, expected, **bound)
    agree(f"{what}, peak cells", actual.flatten(2).argmax(2), expected.reshape(*expected.shape[:2], -1).argmax(2))


class TestMMPose:
    def test_encode(self, golden: Any, agree: Any) -> None:
        arrays = golden.npz("codec.npz")
        points, visible = points_of(arrays)
        for name, sigma in found(arrays, r"enc_hm_s([\d.]+)", "enc_hm_s1.5"):
            codec = MMPoseCodec(crop_size=crop_size(arrays[name]), sigma=float(sigma))
            heatmaps, weights = codec.encode(points, visible)
            agree_maps(agree, f"encode mmpose, sigma {sigma}", heatmaps, arrays[name], atol=1e-6)
            agree(f"encode mmpose, sigma {sigma}, drawn cells", heatmaps > 0, arrays[name] > 0)
            agree(f"encode mmpose, sigma {sigma}, weights", weights, arrays[f"enc_w_s{sigma}"])

    def test_decode(self, golden: Any, agree: Any) -> None:
        arrays = golden.npz("codec.npz")
        heatmaps = torch.from_numpy(arrays["dec_hm"])
        landmarks_crop, scores = MMPoseCodec(crop_size=crop_size(heatmaps.numpy())).decode(heatmaps)
        agree("decode mmpose, points", landmarks_crop, arrays["dec_msra_keypoints"])
        agree("decode mmpose, scores", scores, arrays["dec_msra_scores"])


class TestDark:
    def test_encode(self, golden: Any, agree: Any) -> None:
        arrays = golden.npz("codec.npz")
        points, visible = points_of(arrays)
        for name, sigma in found(arrays, r"enc_hm_s([\d.]+)_unbiased", "enc_hm_s1.5_unbiased"):
            codec = DarkCodec(crop_size=crop_size(arrays[name]), sigma=float(sigma))
            heatmaps, weights = codec.encode(points, visible)
            agree_maps(agree, f"encode dark, sigma {sigma}", heatmaps, arrays[name], atol=1e-6)
            agree(f"encode dark, sigma {sigma}, weights", weights, arrays[f"enc_w_s{sigma}_unbiased"])

    def test_subpixel_encodes_alike(self, golden: Any, agree: Any) -> None:
        arrays = golden.npz("codec.npz")
        points, visible = points_of(arrays)
        for name, sigma in found(arrays, r"enc_hm_s([\d.]+)_unbiased", "enc_hm_s1.5_unbiased"):
            codec = SubpixelCodec(crop_size=crop_size(arrays[name]), sigma=float(sigma))
            heatmaps, weights = codec.encode(points, visible)
            agree("encode subpixel = encode dark, values", heatmaps, arrays[name], atol=1e-6)
            agree("encode subpixel = encode dark, weights", weights, arrays[f"enc_w_s{sigma}_unbiased"])

    def test_decode(self, golden: Any, agree: Any) -> None:
        """To 1e-4 px, on uniform noise 1e-3.

        Where the Hessian is nearly singular, in noise, the reference's own float32 rounding moves its step by more;
        such points are named, and their difference measured in units of that rounding. Where the Hessian is singular
        or the map symmetric, the reference stays on the cell, and so do we.
        """
        arrays = golden.npz("codec.npz")
        heatmaps = torch.from_numpy(arrays["dec_hm"])
        cases = decode_cases(golden, len(heatmaps))
        noise = heatmaps.mean((2, 3)).numpy() > 0.25 * heatmaps.amax((2, 3)).numpy()
        limit = np.where(noise, 1e-3, 1e-4)
        for name, kernel in found(arrays, r"dec_dark(?:_k(\d+))?_keypoints", "dec_dark_keypoints"):
            codec = DarkCodec(crop_size=crop_size(heatmaps.numpy()), blur_kernel_size=int(kernel or 11))
            label = f"decode dark, kernel {codec.blur_kernel_size}"
            points, scores = codec.decode(heatmaps)
            agree(f"{label}, scores", scores, arrays[name.replace("keypoints", "scores")])
            actual, expected = points.numpy(), arrays[name]
            rounding = effect_of_rounding(codec, heatmaps)
            steady = rounding <= limit / 2
            agree(f"{label}, points (px)", actual[steady & ~noise], expected[steady & ~noise], atol=1e-4)
            agree(f"{label}, points, uniform noise (px)", actual[steady & noise], expected[steady & noise], atol=1e-3)
            ratio = np.abs(actual - expected).max(-1) / np.maximum(rounding, 1e-12)
            still = stays_on_its_cell(codec, heatmaps)
            for i, case in enumerate(cases):
                if not steady[i].all():
                    agree(
                        f"{label}, near singular (/ rounding): {case}",
                        ratio[i][~steady[i]],
                        0 * ratio[i][~steady[i]],
                        atol=10,
                    )
                if still[i].any():
                    agree(
                        f"{label}, no step (singular, symmetric): {case}",
                        actual[i][still[i]],
                        expected[i][still[i]],
                        atol=1e-4,
                    )


def decode_cases(golden: Any, number: int) -> list[str]:
    if not (golden.folder / "codec.json").exists():
        return [f"case {i}" for i in range(number)]
    return list(golden.json("codec.json")["decode_cases"])


def effect_of_rounding(codec: DarkCodec, heatmaps: Tensor) -> np.ndarray:
    """How far errors of 1e-7 in the logarithm (float32) move each decoded point, in pixels `[sets, maps]`."""
    logarithm = codec._logarithm_of_blurred(heatmaps.double())
    x, y, _ = first_peaks(heatmaps)
    generator = torch.Generator().manual_seed(0)
    exact = newton_steps(logarithm, x, y)
    moved = [
        newton_steps(logarithm + 1e-7 * torch.randn(logarithm.shape, generator=generator), x, y) - exact
        for _ in range(4)
    ]
    inside = (x > 1) & (x < codec.heatmap_size - 2) & (y > 1) & (y < codec.heatmap_size - 2)
    flat = (exact == 0).all(-1)
    return torch.where(inside & ~flat, codec.stride * torch.stack(moved).abs().amax((0, -1)), 0).numpy()


def stays_on_its_cell(codec: DarkCodec, heatmaps: Tensor) -> np.ndarray:
    """Where a positive map's peak lies inside the border and DARK takes no step, `[sets, maps]`."""
    decoded, scores = codec.decode(heatmaps)
    on_cell = (decoded % codec.stride == 0).all(-1)
    inside = ((decoded > 2 * codec.stride) & (decoded < codec.crop_size - 3 * codec.stride)).all(-1)
    return (on_cell & inside & (scores > 0)).numpy()


class TestHRNet:
    @pytest.mark.parametrize("path", ["hr_target", "hr_target_float"])
    def test_encode(self, golden: Any, agree: Any, path: str) -> None:
        """The authors' whole path, and their `generate_target` alone at unrounded points."""
        arrays = golden.npz("codec.npz")
        points, _ = points_of(arrays)
        for name, sigma in found(arrays, path + r"_s([\d.]+)", f"{path}_s1.0"):
            codec = HRNetCodec(crop_size=crop_size(arrays[name]), sigma=float(sigma))
            if path == "hr_target":
                heatmaps, weights = codec.encode(points, points[..., 1] > 0)  # they skip points with y <= 0
                agree(f"encode hrnet, sigma {sigma}, weights", weights, np.ones(points.shape[:2]))
            else:
                everywhere = torch.ones(points.shape[:2], dtype=torch.bool)
                heatmaps = draw_windows(points / 4, codec.sigma, codec.heatmap_size, everywhere)
            agree_maps(agree, f"encode hrnet ({path}), sigma {sigma}", heatmaps, arrays[name])

    def test_cells(self, golden: Any, agree: Any) -> None:
        """The authors' 1-based cell is the truncated one, plus 1; it is where the target peaks if it is inside."""
        arrays = golden.npz("codec.npz")
        points, _ = points_of(arrays)
        agree("encode hrnet, cells (1-based)", torch.trunc(points / 4) + 1, arrays["hr_tpts"])

    def test_decode(self, golden: Any, agree: Any) -> None:
        arrays = golden.npz("codec.npz")
        heatmaps = torch.from_numpy(arrays["dec_hm"])
        codec = HRNetCodec(crop_size=crop_size(heatmaps.numpy()))
        landmarks_crop, _ = codec.decode(heatmaps)
        agree("decode hrnet, cells (1-based)", landmarks_crop / 4 + 1, arrays["hr_decode_before_transform"])
        if codec.crop_size == 200 * float(arrays["hr_decode_scale"]):  # the image is the crop, moved to its centre
            image_from_crop = torch.eye(3, dtype=torch.float64).repeat(len(heatmaps), 1, 1)
            image_from_crop[:, :2, 2] = torch.from_numpy(arrays["hr_decode_center"] - codec.crop_size / 2)
            landmarks_image = codec.landmarks_in_image(landmarks_crop, image_from_crop)
            agree("decode hrnet, integers in the image", landmarks_image, arrays["hr_decode_preds_256"])


ROUND_TRIPS = {
    r"mmpose sigma([\d.]+)": lambda s: (MMPoseCodec(crop_size=256, sigma=s), MMPoseCodec(crop_size=256, sigma=s)),
    r"dark sigma([\d.]+) k(\d+)": lambda s, k: (
        DarkCodec(crop_size=256, sigma=s),
        DarkCodec(crop_size=256, blur_kernel_size=int(k)),
    ),
    r"biased encode sigma([\d.]+) \+ dark decode": lambda s: (
        MMPoseCodec(crop_size=256, sigma=s),
        DarkCodec(crop_size=256),
    ),
    r"unbiased encode sigma([\d.]+) \+ quarter decode": lambda s: (
        DarkCodec(crop_size=256, sigma=s),
        MMPoseCodec(crop_size=256),
    ),
    r"original sigma([\d.]+)": lambda s: (HRNetCodec(crop_size=256, sigma=s), HRNetCodec(crop_size=256, sigma=s)),
    r"original encode sigma([\d.]+), mmpose decode.*": lambda s: (
        HRNetCodec(crop_size=256, sigma=s),
        MMPoseCodec(crop_size=256),
    ),
}


def round_trip_errors(encoder: Codec, decoder: Codec) -> np.ndarray:
    """Errors `[1600, 2]` of a perfect network at points well inside the crop, in pixels."""
    points = torch.from_numpy(np.random.RandomState(0).uniform(24, 232, (40, 40, 2)).astype(np.float32))
    decoded, _ = decoder.decode(encoder.encode(points)[0])
    identity = torch.eye(3, dtype=torch.float64).expand(len(points), 3, 3)
    return (decoder.landmarks_in_image(decoded, identity) - points).reshape(-1, 2).numpy()


def test_error_of_a_perfect_network(golden: Any, agree: Any) -> None:
    """The floor of every pair of encoder and decoder, at other random points than the reference's: statistical."""
    for name, expected in golden.json("roundtrip.json").items():
        for pattern, make in ROUND_TRIPS.items():
            if match := re.fullmatch(pattern, name):
                errors = round_trip_errors(*make(*map(float, match.groups())))
                name = name.partition(" (")[0]
                distances = np.linalg.norm(errors, axis=1)
                rms = np.sqrt((distances**2).mean())
                bound = 0.08 if expected["rms"] > 0.1 else 5e-4
                agree(f"perfect network, rms (px): {name}", rms, expected["rms"], atol=bound)
                agree(f"perfect network, mean (px): {name}", distances.mean(), expected["mean_dist"], atol=bound)
                agree(f"perfect network, bias (px): {name}", errors.mean(0), expected["bias"], atol=bound)
