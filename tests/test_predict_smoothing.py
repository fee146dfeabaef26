"""Jitter and lag of the filter, measured on a synthetic face: 68 points in a 200 pixel square, 30 frames a second."""

import numpy as np
import pytest

from facelm.predict.smoothing import OneEuro

FPS, SIDE, FRAMES = 30, 200.0, 240
FACE = np.random.default_rng(0).uniform(0, SIDE, (68, 2))
NOISE = 0.004 * SIDE  # about 0.4 % of the side from frame to frame, as a network's landmarks have on a still face


def follow(path, noise=NOISE, own=None, **options):
    """(true, found, smoothed) [T, 68, 2] of the face moved by `path` [T, 2]; `own` [T, 68, 2] moves its points."""
    rng = np.random.default_rng(1)
    smooth = OneEuro(**options)
    true = FACE + path[:, None] + (0 if own is None else own)
    found = true + rng.normal(0, noise, true.shape)
    return true, found, np.array([smooth(points, i / FPS, SIDE) for i, points in enumerate(found)])


def still():
    return np.zeros((FRAMES, 2))


def moving(speed, start=60):
    """At rest, then at `speed` sides a second to the right."""
    path = still()
    path[start:, 0] = np.arange(FRAMES - start) * speed * SIDE / FPS
    return path


def jitter(points):
    """Root mean square movement from frame to frame, in pixels, after the first second."""
    return np.sqrt((np.diff(points[FPS:], axis=0) ** 2).sum(axis=-1).mean())


def lag(true, smoothed):
    """How far the face is behind in x, in sides, by frame."""
    return (true - smoothed)[..., 0].mean(axis=1) / SIDE


class TestStill:
    def test_jitter_falls_to_a_quarter(self):
        _, found, smoothed = follow(still())
        assert jitter(found) / jitter(smoothed) > 4

    def test_and_the_error_to_half(self):
        true, found, smoothed = follow(still())
        rms = [np.sqrt(((points - true)[FPS:] ** 2).sum(axis=-1).mean()) for points in (found, smoothed)]
        assert rms[0] / rms[1] > 2

    def test_points_that_share_the_speed_beat_single_ones(self):
        """What averaging the velocity over the face is for: the same lag, half the jitter."""
        shared = follow(still())
        single = follow(still(), own_beta=30.0, own_cutoff=5.0)
        assert jitter(single[2]) > 1.8 * jitter(shared[2])


class TestMoving:
    @pytest.mark.parametrize("speed", [0.1, 0.5, 1.0, 3.0])
    def test_steady_lag_is_below_half_a_percent_of_the_face(self, speed):
        true, _, smoothed = follow(moving(speed))
        assert lag(true, smoothed)[-60:].mean() < 0.0054

    @pytest.mark.parametrize("speed", [0.5, 1.0])
    def test_and_below_half_a_frame(self, speed):
        true, _, smoothed = follow(moving(speed))
        assert lag(true, smoothed)[-60:].mean() / speed < 0.5 / FPS

    def test_a_sudden_start_is_followed_at_once(self):
        true, _, smoothed = follow(moving(1.0))
        assert lag(true, smoothed).max() < 0.01

    def test_a_nod_is_followed(self):
        path = still()
        path[:, 1] = 0.15 * SIDE * np.sin(2 * np.pi * 1.5 * np.arange(FRAMES) / FPS)
        true, found, smoothed = follow(path)
        rms = [np.sqrt((((points - true) / SIDE)[FPS:] ** 2).sum(axis=-1).mean()) for points in (found, smoothed)]
        assert rms[1] < 1.6 * rms[0]
        assert rms[1] < 0.01

    def test_an_opening_mouth_is_followed(self):
        """Points that move within a still face: at most 2 % of its side behind, and there in a fifth of a second."""
        own = np.zeros((FRAMES, 68, 2))
        own[:, 60:, 1] = 0.15 * SIDE * np.clip((np.arange(FRAMES) / FPS - 3) / 0.2, 0, 1)[:, None]
        true, _, smoothed = follow(still(), own=own)
        behind = (true - smoothed)[:, 60:, 1].mean(axis=1) / SIDE
        assert behind.max() < 0.025
        assert abs(behind[int(3.4 * FPS)]) < 0.005

    def test_size_and_direction_do_not_matter(self):
        _, found, smoothed = follow(moving(0.7))
        turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
        other = OneEuro()
        large = np.array([other(4 * points @ turn, i / FPS, 4 * SIDE) for i, points in enumerate(found)])
        assert np.allclose(large, 4 * smoothed @ turn)


class TestTimes:
    def test_the_first_points_come_out_as_they_are(self):
        assert np.array_equal(OneEuro()(FACE, 12.5, SIDE), FACE)

    @pytest.mark.parametrize("seconds", [1.0, 0.5, float("nan")])
    def test_times_must_rise(self, seconds):
        smooth = OneEuro()
        smooth(FACE, 1.0, SIDE)
        with pytest.raises(ValueError, match="rising times"):
            smooth(FACE, seconds, SIDE)
