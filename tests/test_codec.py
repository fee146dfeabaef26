from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from facelm.codec import CODECS, Codec, DarkCodec, HRNetCodec, MMPoseCodec, SubpixelCodec, build_codec
from facelm.codec.dark import newton_steps, opencv_gaussian
from facelm.codec.peaks import first_peaks

all_codecs = pytest.mark.parametrize("name", CODECS)


def points(crop_size: int, low: float, high: float, batch: int = 40, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random points `[batch, 25, 2]` between the crop pixels `low` and `crop_size - 1 - high`."""
    generator = torch.Generator().manual_seed(11)
    return low + (crop_size - 1 - high - low) * torch.rand(batch, 25, 2, dtype=dtype, generator=generator)


def round_trip(encoder: Codec, decoder: Codec, landmarks_crop: Tensor) -> Tensor:
    """Errors `[..., 2]` of a perfect network."""
    return decoder.decode(encoder.encode(landmarks_crop)[0])[0] - landmarks_crop


def rms(errors: Tensor) -> float:
    return float(errors.square().sum(-1).mean().sqrt())


class TestEveryCodec:
    @all_codecs
    def test_shapes_types_and_weights(self, name: str) -> None:
        codec = build_codec({"name": name}, 128)
        for dtype in (torch.float32, torch.float64):
            heatmaps, weights = codec.encode(points(128, 20, 20, 2, dtype))
            assert heatmaps.shape == (2, 25, 32, 32)
            assert heatmaps.amax((2, 3)).min() > 0.9
            assert torch.equal(weights, torch.ones(2, 25, dtype=dtype))
            landmarks_crop, scores = codec.decode(heatmaps)
            assert landmarks_crop.shape == (2, 25, 2)
            assert scores.shape == (2, 25)
            assert {heatmaps.dtype, weights.dtype, landmarks_crop.dtype, scores.dtype} == {dtype}

    @all_codecs
    def test_a_face_does_not_depend_on_its_batch(self, name: str) -> None:
        codec = build_codec({"name": name}, 64)
        landmarks_crop = points(64, -20, -20, 3)
        heatmaps, weights = codec.encode(landmarks_crop)
        noisy = heatmaps + 0.1 * torch.rand(heatmaps.shape)
        for i in range(3):
            alone, weight = codec.encode(landmarks_crop[i : i + 1])
            assert torch.equal(alone[0], heatmaps[i])
            assert torch.equal(weight[0], weights[i])
            assert torch.equal(codec.decode(noisy[i : i + 1])[0][0], codec.decode(noisy)[0][i])

    @all_codecs
    def test_narrow_heatmaps_are_decoded_wide(self, name: str) -> None:
        codec = build_codec({"name": name}, 64)
        narrow = codec.encode(points(64, 8, 8, 2))[0].bfloat16()
        decoded = codec.decode(narrow)[0]
        assert decoded.dtype == torch.float32
        assert torch.equal(decoded, codec.decode(narrow.float())[0])

    @all_codecs
    def test_autocast_and_memory_format_change_nothing(self, name: str) -> None:
        """A matrix product or a convolution would keep 8 bits under autocast."""
        codec = build_codec({"name": name}, 128)
        landmarks_crop = points(128, 8, 8, 2)
        heatmaps, _ = codec.encode(landmarks_crop)
        image_from_crop = (1.7 * torch.eye(3)).expand(2, 3, 3)
        decoded, _ = codec.decode(heatmaps)
        in_image = codec.landmarks_in_image(decoded, image_from_crop)
        assert torch.equal(decoded, codec.decode(heatmaps.contiguous(memory_format=torch.channels_last))[0])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(codec.encode(landmarks_crop)[0], heatmaps)
            assert torch.equal(codec.decode(heatmaps)[0], decoded)
            assert torch.equal(codec.landmarks_in_image(decoded, image_from_crop), in_image)

    @all_codecs
    def test_codec_made_in_inference_mode_decodes_with_gradients(self, name: str) -> None:
        with torch.inference_mode():
            codec = build_codec({"name": name}, 64)
        heatmaps = codec.encode(points(64, 8, 8, 1))[0].requires_grad_()
        scores = codec.decode(heatmaps)[1]
        codec.decode(heatmaps)[0].sum().add(scores.sum()).backward()
        assert heatmaps.grad is not None

    @all_codecs
    def test_invisible_points_are_blank(self, name: str) -> None:
        visible = torch.tensor([[1.0, 0.0, 0.4, 0.6]])
        heatmaps, weights = build_codec({"name": name}, 64).encode(torch.full((1, 4, 2), 30.0), visible)
        assert (heatmaps.amax((2, 3)) > 0).tolist() == [[True, False, False, True]]
        expected = [1.0, 1.0, 1.0, 1.0] if name == "hrnet" else [1.0, 0.0, 0.4, 0.6]
        assert weights[0].tolist() == pytest.approx(expected)

    @all_codecs
    def test_points_far_outside(self, name: str) -> None:
        far = torch.tensor([[[-500.0, 30.0], [30.0, 900.0], [30.0, 30.0]]])
        heatmaps, weights = build_codec({"name": name}, 64).encode(far)
        assert heatmaps[0, :2].abs().max() == 0
        assert weights[0].tolist() == ([1, 1, 1] if name == "hrnet" else [0, 0, 1])

    @all_codecs
    def test_spec_makes_it_again(self, name: str) -> None:
        codec = build_codec({"name": name, "sigma": 1.75}, 192)
        assert build_codec(codec.spec(), 192) == codec
        assert codec.spec()["sigma"] == 1.75
        assert {type(value) for value in codec.spec().values()} <= {str, int, float, bool, type(None)}


class TestMistakes:
    def test_unknown_codec(self) -> None:
        with pytest.raises(ValueError, match=r"no codec 'msra'.*known: mmpose, dark, hrnet, subpixel.*`codec=`"):
            build_codec({"name": "msra"}, 256)

    def test_unknown_option(self) -> None:
        with pytest.raises(ValueError, match=r"codec 'mmpose' has no option blur_kernel_size; it has sigma"):
            build_codec({"name": "mmpose", "blur_kernel_size": 11}, 256)

    def test_crop_size(self) -> None:
        with pytest.raises(ValueError, match=r"crop_size=250 must be a positive multiple of 4"):
            MMPoseCodec(crop_size=250)

    @pytest.mark.parametrize("sigma", [0, -1.0, float("nan"), float("inf"), "2"])
    def test_sigma(self, sigma: float) -> None:
        with pytest.raises(ValueError, match=r"must be a positive number of heatmap cells"):
            MMPoseCodec(crop_size=256, sigma=sigma)

    def test_heatmaps_of_another_crop_size(self) -> None:
        with pytest.raises(ValueError, match=r"for crops of 256 pixels decodes .*64, 64\], got .*\[1, 68, 32, 32\]"):
            MMPoseCodec(crop_size=256).decode(torch.zeros(1, 68, 32, 32))

    def test_windows_that_do_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"radius=40 does not fit heatmaps of 64 cells"):
            SubpixelCodec(crop_size=256, radius=40)
        with pytest.raises(ValueError, match=r"sigma=0\.5 is too narrow"):
            SubpixelCodec(crop_size=256, sigma=0.5)
        with pytest.raises(ValueError, match=r"blur_kernel_size=10 must be odd"):
            DarkCodec(crop_size=256, blur_kernel_size=10)


class TestSubpixel:
    @pytest.mark.parametrize("sigma", [0.8, 1.0, 1.5, 2.0, 3.0])
    @pytest.mark.parametrize("crop_size", [128, 256])
    def test_a_perfect_network_is_exact_everywhere_in_the_crop(self, crop_size: int, sigma: float) -> None:
        codec = SubpixelCodec(crop_size=crop_size, sigma=sigma)
        landmarks_crop = points(crop_size, 0, 0, 20)
        landmarks_crop[:10] = landmarks_crop[:10].round()
        edge = landmarks_crop[:, :8]  # and all the way round its border
        edge[:, :2, 0], edge[:, 2:4, 0], edge[:, 4:6, 1], edge[:, 6:8, 1] = 0, crop_size - 1, 0, crop_size - 1
        edge[0, 0], edge[0, 2] = torch.tensor([0.0, 0.0]), torch.tensor([crop_size - 1.0, crop_size - 1.0])
        assert round_trip(codec, codec, landmarks_crop).abs().max() < 1e-3

    @pytest.mark.parametrize("radius", [1, 2, 3])
    def test_is_exact_for_broad_and_slanted_peaks(self, radius: int) -> None:
        """What a network shows that is unsure along a contour."""
        codec = SubpixelCodec(crop_size=128, radius=radius)
        center = points(32, 10, 10, 4, torch.float64)
        dx, dy = torch.arange(32.0) - center[..., 0, None], torch.arange(32.0) - center[..., 1, None]
        dx, dy = dx[..., None, :], dy[..., :, None]
        heatmaps = 0.4 * torch.exp(-(3.0 * dx**2 - 2 * 1.8 * dx * dy + 4.0 * dy**2) / (2 * (12.0 - 1.8**2)))
        landmarks_crop, scores = codec.decode(heatmaps)
        assert (landmarks_crop / 4 - center).abs().max() < 1e-3
        assert scores.max() < 0.401

    def test_noise_costs_less_than_with_a_three_point_fit(self) -> None:
        codec = SubpixelCodec(crop_size=128)
        landmarks_crop = points(128, 16, 16)
        heatmaps, _ = codec.encode(landmarks_crop)
        noisy = heatmaps + 0.03 * torch.randn(heatmaps.shape, generator=torch.Generator().manual_seed(0))
        error = rms(codec.decode(noisy)[0] - landmarks_crop)
        narrow = rms(SubpixelCodec(crop_size=128, radius=1).decode(noisy)[0] - landmarks_crop)
        quarter = rms(MMPoseCodec(crop_size=128).decode(noisy)[0] - landmarks_crop)
        assert error < 0.25
        assert error < 0.7 * narrow
        assert error < 0.3 * quarter

    @pytest.mark.parametrize("seed", range(3))
    def test_stays_within_a_cell_of_the_largest_value(self, seed: int) -> None:
        heatmaps = torch.randn(8, 68, 32, 32, generator=torch.Generator().manual_seed(seed))
        x, y, _ = first_peaks(heatmaps)
        landmarks_crop, _ = SubpixelCodec(crop_size=128).decode(heatmaps)
        assert (landmarks_crop - 4 * torch.stack([x, y], -1)).abs().max() <= 4

    def test_without_a_top_takes_the_quarter_step(self) -> None:
        heatmaps = torch.zeros(1, 2, 16, 16)
        heatmaps[0, 0, :, 6:10] = torch.tensor([0.5, 0.5, 1.0, 0.9])  # a ridge along y has no top
        heatmaps[0, 1] = 1.0  # flat
        landmarks_crop, _ = SubpixelCodec(crop_size=64).decode(heatmaps)
        assert landmarks_crop[0].tolist() == [[4 * 8.25, 0.0], [0.0, 0.0]]

    def test_without_a_positive_value_is_the_largest_cell(self) -> None:
        heatmaps = -torch.ones(1, 2, 16, 16)
        heatmaps[0, 0, 5, 9] = -0.5
        heatmaps[0, 1, 3, 2] = 0.0
        landmarks_crop, scores = SubpixelCodec(crop_size=64).decode(heatmaps)
        assert landmarks_crop[0].tolist() == [[36.0, 20.0], [8.0, 12.0]]
        assert scores[0].tolist() == [-0.5, 0.0]

    def test_the_height_of_the_map_does_not_matter(self) -> None:
        codec = SubpixelCodec(crop_size=64)
        heatmaps, _ = codec.encode(points(64, 4, 4))
        reference, _ = codec.decode(heatmaps)
        for height in (1e-6, 1e-3, 1e4):
            assert (codec.decode(height * heatmaps)[0] - reference).abs().max() < 1e-3

    def test_a_point_just_outside_is_drawn_and_counts(self) -> None:
        heatmaps, weights = SubpixelCodec(crop_size=64).encode(torch.tensor([[[-6.0, 30.0], [-40.0, 30.0]]]))
        assert weights.tolist() == [[1.0, 0.0]]
        assert heatmaps[0, 0].argmax() % 16 == 0
        assert heatmaps[0, 0].max() > 0.3

    def test_another_sigma_in_the_decoder_costs_nothing_on_clean_maps(self) -> None:
        """The curvature is fitted, not assumed: sigma sets the weights only."""
        encoder = SubpixelCodec(crop_size=128, sigma=2.0)
        decoder = SubpixelCodec(crop_size=128, sigma=1.0)
        assert round_trip(encoder, decoder, points(128, 8, 8)).abs().max() < 1e-3


class TestMMPose:
    @pytest.mark.parametrize("sigma", [1.5, 2.0])
    def test_rounding_costs_a_perfect_network_one_and_a_half_pixels(self, sigma: float) -> None:
        codec = MMPoseCodec(crop_size=256, sigma=sigma)
        errors = round_trip(codec, codec, points(256, 20, 8))
        assert errors.norm(dim=-1).mean() == pytest.approx(1.53, abs=0.05)
        assert rms(errors) == pytest.approx(1.63, abs=0.05)
        assert errors.mean((0, 1)).abs().max() < 0.1

    def test_draws_a_gaussian_of_its_sigma(self) -> None:
        """At sigma 1.5 the window is 10 cells wide: five left of the peak and four right of it."""
        heatmaps, _ = MMPoseCodec(crop_size=256).encode(torch.tensor([[[80.0, 120.0]]]))
        row = heatmaps[0, 0, 30]
        assert row.nonzero()[:, 0].tolist() == list(range(15, 25))
        assert row[15:25].tolist() == pytest.approx([math.exp(-((x - 20) ** 2) / 4.5) for x in range(15, 25)])
        assert (heatmaps[0, 0] > 0).sum() == 100

    def test_rounds_to_the_nearest_cell(self) -> None:
        landmarks_crop = torch.tensor([[[41.9, 42.0], [45.9, 46.1]]])
        x, y, _ = first_peaks(MMPoseCodec(crop_size=256).encode(landmarks_crop)[0])
        assert torch.stack([x, y], -1).tolist() == [[[10, 11], [11, 12]]]

    @pytest.mark.parametrize(("sigma", "cell"), [(1.5, 4), (2.0, 3)])
    def test_near_the_top_left_edge_sigma_of_one_and_a_half_is_a_cell_off(self, sigma: float, cell: int) -> None:
        landmarks_crop = torch.tensor([[[12.0, 128.0], [128.0, 12.0], [244.0, 128.0]]])
        x, y, _ = first_peaks(MMPoseCodec(crop_size=256, sigma=sigma).encode(landmarks_crop)[0])
        assert x[0].tolist() == [cell, 32, 61]
        assert y[0].tolist() == [32, cell, 32]

    def test_a_point_outside_keeps_its_weight_with_a_blank_map(self) -> None:
        heatmaps, weights = MMPoseCodec(crop_size=256).encode(torch.tensor([[[-26.0, 128.0], [-31.0, 128.0]]]))
        assert heatmaps.max() == 0
        assert weights.tolist() == [[1.0, 0.0]]

    def test_no_positive_value_is_minus_four(self) -> None:
        assert MMPoseCodec(crop_size=64).decode(torch.zeros(1, 1, 16, 16))[0].tolist() == [[[-4.0, -4.0]]]


class TestDark:
    @pytest.mark.parametrize("size", [1, 3, 5, 7, 9, 11, 15])
    def test_kernel_is_opencvs(self, size: int) -> None:
        assert opencv_gaussian(size) == pytest.approx(cv2.getGaussianKernel(size, 0)[:, 0].tolist(), rel=1e-12)

    def test_a_perfect_network_is_exact(self) -> None:
        codec = DarkCodec(crop_size=256)
        assert round_trip(codec, codec, points(256, 24, 24, 10)).abs().max() < 5e-3

    def test_blurs_as_opencv_does(self) -> None:
        heatmap = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        padded = np.pad(heatmap[0, 0].numpy(), 5)
        expected = cv2.GaussianBlur(padded, (11, 11), 0)[5:-5, 5:-5]
        expected = np.log(expected * (heatmap.max().item() / expected.max()))
        actual = DarkCodec(crop_size=128)._logarithm_of_blurred(heatmap)[0, 0].numpy()
        assert np.abs(actual - expected).max() < 1e-5

    def test_takes_no_step_where_the_hessian_is_singular(self) -> None:
        """A ridge that rises along its crest: the gradient is not 0, but there is no top to go to."""
        x, y = torch.arange(16.0), torch.arange(16.0)[:, None]
        ridge = (-((x - 8) ** 2) + 0.5 * y + x)[None, None]
        cell = torch.tensor([[8]])
        assert newton_steps(ridge, cell, cell).tolist() == [[[0.0, 0.0]]]
        top = ridge - (y - 6) ** 2
        assert newton_steps(top, cell, cell).tolist() == [[[0.5, -1.75]]]


class TestHRNet:
    def test_predictions_in_the_image_are_integers(self) -> None:
        codec = HRNetCodec(crop_size=256)
        image_from_crop = torch.tensor([[1.3, 0.0, -20.4], [0.0, 1.3, 33.3], [0, 0, 1]], dtype=torch.float64)[None]
        landmarks_image = codec.landmarks_in_image(torch.tensor([[[10.0, 10.0], [50.0, 60.0]]]), image_from_crop)
        assert landmarks_image.tolist() == [[[-6.0, 47.0], [45.0, 112.0]]]  # -7.4 goes to -7: towards zero
        plain = HRNetCodec(crop_size=256, integer_predictions=False)
        landmarks_image = plain.landmarks_in_image(torch.tensor([[[50.0, 60.0]]]), image_from_crop)
        assert landmarks_image[0, 0].tolist() == pytest.approx([44.6, 111.3])

    def test_a_perfect_network_has_no_bias_in_the_crop(self) -> None:
        codec = HRNetCodec(crop_size=256)
        assert round_trip(codec, codec, points(256, 8, 8)).mean((0, 1)).abs().max() < 0.1

    def test_decoded_as_mmpose_it_is_two_pixels_off(self) -> None:
        errors = round_trip(HRNetCodec(crop_size=256), MMPoseCodec(crop_size=256), points(256, 20, 20))
        assert errors.mean((0, 1)).tolist() == pytest.approx([-2.0, -2.0], abs=0.1)


class TestLandmarksInImage:
    def test_is_affine_and_takes_the_wider_type(self) -> None:
        matrix = torch.tensor([[1.8, -0.8, 3000.25], [0.8, 1.8, -7.5], [0.0, 0.0, 1.0]], dtype=torch.float64)
        landmarks_crop = points(256, 0, 0, 2)
        landmarks_image = SubpixelCodec(crop_size=256).landmarks_in_image(
            landmarks_crop, torch.stack([matrix, torch.eye(3, dtype=torch.float64)])
        )
        assert landmarks_image.dtype == torch.float64
        assert torch.equal(landmarks_image[1], landmarks_crop[1].double())
        homogeneous = torch.cat([landmarks_crop[0].double(), torch.ones(25, 1, dtype=torch.float64)], -1)
        assert torch.allclose(landmarks_image[0], (homogeneous @ matrix.T)[:, :2], atol=1e-10)
