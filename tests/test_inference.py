from __future__ import annotations

import pytest
import torch
from torch import Tensor

from facelm.codec import Codec, DarkCodec, MMPoseCodec, SubpixelCodec
from facelm.geometry.landmarks import IBUG68
from facelm.models.inference import IMAGENET_MEAN, IMAGENET_STD, flip_heatmaps, normalise, predict_landmarks

SIZE = 128
MIRROR = IBUG68.mirror


class PerfectNetwork:
    """Heatmaps of the points that are written in the picture, whichever way round it is shown.

    Row k of the first channel holds a spot at landmark k's x, row k of the second its y; the third rises to the
    right, so that the network can tell a mirrored picture, where landmark k looks like its mirror image.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.batches: list[int] = []

    def __call__(self, inputs: Tensor) -> Tensor:
        self.batches.append(len(inputs))
        columns = torch.arange(inputs.shape[-1], dtype=inputs.dtype)
        x = (inputs[:, 0] * columns).sum(-1)
        landmarks = torch.stack([x, inputs[:, 1].mean(-1)], -1)
        seen_mirrored = inputs[:, 2, 0, 0] > inputs[:, 2, 0, -1]
        as_mirrored = landmarks[:, list(MIRROR)]
        return self.codec.encode(torch.where(seen_mirrored[:, None, None], as_mirrored, landmarks)[:, :68])[0]


def picture_of(landmarks_crop: Tensor) -> Tensor:
    """What `PerfectNetwork` reads, `[B, 3, 68, SIZE]`."""
    left = landmarks_crop[..., 0].floor()
    columns = torch.arange(SIZE, dtype=landmarks_crop.dtype)
    part = landmarks_crop[..., 0] - left
    spot = (columns == left[..., None]) * (1 - part)[..., None] + (columns == left[..., None] + 1) * part[..., None]
    return torch.stack([spot, landmarks_crop[..., 1:].expand_as(spot), columns.expand_as(spot)], 1)


def random_landmarks(faces: int, margin: float = 30.0) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    span = SIZE - 1 - 2 * margin
    return margin + span * torch.rand(faces, 68, 2, dtype=torch.float64, generator=generator)


def mean_error(codec: Codec, flip: str, faces: int = 30) -> Tensor:
    """Bias in x and y, in pixels of the crop, of a perfect network."""
    landmarks = random_landmarks(faces)
    predicted, _ = predict_landmarks(PerfectNetwork(codec), picture_of(landmarks), codec, MIRROR, flip)
    return (predicted - landmarks).mean((0, 1))


class TestFlipTest:
    @pytest.mark.parametrize("codec", [SubpixelCodec(crop_size=SIZE), DarkCodec(crop_size=SIZE, sigma=1.5)])
    def test_exact_leaves_a_perfect_network_perfect(self, codec: Codec) -> None:
        landmarks = random_landmarks(5)
        predicted, scores = predict_landmarks(PerfectNetwork(codec), picture_of(landmarks), codec, MIRROR, "exact")
        assert (predicted - landmarks).abs().max() < 2e-3
        assert scores.shape == (5, 68)

    @pytest.mark.parametrize("codec", [SubpixelCodec(crop_size=SIZE), DarkCodec(crop_size=SIZE, sigma=1.5)])
    def test_shifted_is_half_a_pixel_too_far_right(self, codec: Codec) -> None:
        """mmpose's flip test: a quarter cell remains after the shift, half of it after averaging."""
        bias = mean_error(codec, "shifted")
        assert bias[0] == pytest.approx(0.5, abs=0.02)
        assert bias[1] == pytest.approx(0.0, abs=0.002)

    def test_exact_has_no_bias_with_a_rounding_codec_either(self) -> None:
        codec = MMPoseCodec(crop_size=SIZE)
        assert mean_error(codec, "none")[0].abs() < 0.1
        assert mean_error(codec, "exact")[0].abs() < 0.1
        assert mean_error(codec, "shifted")[0] > 0.2

    def test_scores_are_those_of_the_same_landmark(self) -> None:
        codec = SubpixelCodec(crop_size=SIZE)
        height = torch.rand(1, 68, 1, 1, generator=torch.Generator().manual_seed(0))
        heatmaps = torch.cat([height, height[:, list(MIRROR)]]) * torch.ones(32, 32)
        _, scores = predict_landmarks(lambda _: heatmaps, torch.zeros(1, 3, SIZE, SIZE), codec, MIRROR, "exact")
        assert torch.equal(scores, height[..., 0, 0])

    @pytest.mark.parametrize("flip", ["none", "shifted", "exact"])
    def test_the_shift_moves_the_result_not_each_view(self, flip: str) -> None:
        """Added before averaging it would cancel itself: the mirrored view's points to the right lie to the left."""
        codec, landmarks = SubpixelCodec(crop_size=SIZE), random_landmarks(5)
        arguments = PerfectNetwork(codec), picture_of(landmarks), codec, MIRROR, flip
        moved = predict_landmarks(*arguments, 1.5)[0] - predict_landmarks(*arguments)[0]
        assert torch.allclose(moved, torch.tensor([1.5, 0.0], dtype=moved.dtype))

    @pytest.mark.parametrize("flip", ["shifted", "exact"])
    def test_a_wrong_flip_pair_shows(self, flip: str) -> None:
        codec = SubpixelCodec(crop_size=SIZE)
        wrong = list(MIRROR)
        wrong[36], wrong[45], wrong[37], wrong[44] = 44, 37, 45, 36
        landmarks = random_landmarks(5)
        predicted, _ = predict_landmarks(PerfectNetwork(codec), picture_of(landmarks), codec, wrong, flip)
        error = (predicted - landmarks).norm(dim=-1).mean(0)
        assert error[[36, 37, 44, 45]].max() > 5
        assert error[[0, 8, 30, 48]].max() < 1

    @pytest.mark.parametrize(("flip", "batches"), [("none", [4]), ("shifted", [8]), ("exact", [8])])
    def test_both_views_are_one_batch(self, flip: str, batches: list[int]) -> None:
        network = PerfectNetwork(SubpixelCodec(crop_size=SIZE))
        predict_landmarks(network, picture_of(random_landmarks(4)), network.codec, MIRROR, flip)
        assert network.batches == batches

    def test_narrow_heatmaps_are_averaged_wide(self) -> None:
        codec = MMPoseCodec(crop_size=SIZE)
        heatmaps = torch.rand(6, 68, 32, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
        narrow = predict_landmarks(lambda _: heatmaps, torch.zeros(3, 3, SIZE, SIZE), codec, MIRROR, "shifted")
        wide = predict_landmarks(lambda _: heatmaps.float(), torch.zeros(3, 3, SIZE, SIZE), codec, MIRROR, "shifted")
        assert torch.equal(narrow[0], wide[0])
        assert torch.equal(narrow[1], wide[1])


class TestFlipHeatmaps:
    def test_twice_is_nothing(self) -> None:
        heatmaps = torch.rand(2, 68, 8, 8)
        assert torch.equal(flip_heatmaps(flip_heatmaps(heatmaps, MIRROR, False), MIRROR, False), heatmaps)

    def test_shift_moves_right_and_keeps_the_first_column(self) -> None:
        heatmaps = torch.arange(4.0).expand(1, 2, 1, 4)
        assert flip_heatmaps(heatmaps, (1, 0), shift=False)[0, 0, 0].tolist() == [3, 2, 1, 0]
        assert flip_heatmaps(heatmaps, (1, 0), shift=True)[0, 0, 0].tolist() == [3, 3, 2, 1]


class TestNormalise:
    def test_values(self) -> None:
        images = torch.tensor([0, 128, 255], dtype=torch.uint8).expand(1, 2, 2, 3).contiguous()
        expected = [(v - m) / s for v, m, s in zip((0, 128, 255), IMAGENET_MEAN, IMAGENET_STD, strict=True)]
        assert normalise(images)[0, :, 1, 1].tolist() == pytest.approx(expected, rel=1e-6)

    def test_is_channels_last_and_leaves_its_input_alone(self) -> None:
        images = torch.randint(0, 255, (2, 8, 6, 3), dtype=torch.uint8)
        before = images.clone()
        inputs = normalise(images)
        assert inputs.shape == (2, 3, 8, 6)
        assert inputs.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images, before)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_rounds_once(self, dtype: torch.dtype) -> None:
        images = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
        exact = normalise(images, dtype=torch.float64)
        inputs = normalise(images, dtype=dtype)
        assert inputs.dtype == dtype
        assert torch.allclose(inputs.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-6)


class TestMistakes:
    def test_unknown_flip(self) -> None:
        with pytest.raises(ValueError, match=r"no flip test 'both'; known: none, shifted, exact.*inference\.flip="):
            predict_landmarks(lambda x: x, torch.zeros(1, 3, 8, 8), SubpixelCodec(crop_size=SIZE), MIRROR, "both")

    @pytest.mark.parametrize("flip", ["shifted", "exact"])
    def test_mirror_of_another_scheme(self, flip: str) -> None:
        codec = SubpixelCodec(crop_size=SIZE)
        with pytest.raises(ValueError, match=r"permutes 68 landmarks, the heatmaps have 98"):
            predict_landmarks(lambda x: torch.ones(2, 98, 32, 32), torch.zeros(1, 3, SIZE, SIZE), codec, MIRROR, flip)

    def test_images_that_are_normalised_already(self) -> None:
        with pytest.raises(ValueError, match=r"takes uint8 images \[B, H, W, 3\], got torch\.float32 \[1, 3, 8, 8\]"):
            normalise(torch.zeros(1, 3, 8, 8))
