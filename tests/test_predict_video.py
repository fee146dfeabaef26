import numpy as np
import pytest

from facelm.geometry.boxes import CONVENTIONS
from facelm.predict import Predictor
from facelm.predict.frames import Frame
from facelm.predict.photographs import Photograph
from facelm.predict.video import FaceTracker
from perfect_network import SPEC, PerfectNetwork, box_of, face_landmarks, map_image


class Scene:
    """Faces that move through the map image; detector and network know where they are at any frame."""

    convention = CONVENTIONS["square"]

    def __init__(self, *paths, refine=1):
        self.paths = paths  # each a function frame -> landmarks [68, 2], or None where the face is not there
        self.looks = 0
        self.found_from = 0  # the detector is blind before this frame
        self.net = PerfectNetwork(*(path(0) for path in paths if path(0) is not None))
        self.predictor = Predictor(self.net, SPEC, device="cpu", detector=self, refine=refine, flip="none")

    def __call__(self, image):
        self.looks += 1
        if self.number < self.found_from:
            return np.empty((0, 4))
        return np.array([box_of(face).xyxy for face in self.net.faces]).reshape(-1, 4)

    def frame(self, number):
        self.number = number
        self.net.faces = [path(number) for path in self.paths if path(number) is not None]
        self.net.peak = 1.0 if self.net.faces else 0.0
        if not self.net.faces:
            self.net.faces = [np.full((68, 2), 100.0) + np.random.default_rng(number).normal(0, 20, (68, 2))]
        return Frame(number, number / 25, map_image())


def walking(start=60.0, step=2.0, side=60.0, seed=0, y=100.0):
    return lambda number: face_landmarks((start + step * number, y), side, seed)


class TestTracker:
    def test_a_face_is_followed_from_its_own_landmarks(self):
        scene = Scene(walking())
        tracker = FaceTracker(scene.predictor, smooth=False, detect_every=100)
        for number in range(30):
            faces = tracker(scene.frame(number))
            assert [face.track for face in faces] == [1]
            assert np.abs(faces[0].landmarks_image - walking()(number)).max() < 0.5
        assert scene.looks == 1

    def test_two_faces_keep_their_numbers(self):
        scene = Scene(walking(seed=1, y=50), walking(start=180, step=-2, seed=2, y=150))
        tracker = FaceTracker(scene.predictor, smooth=False, detect_every=10)
        for number in range(30):
            faces = tracker(scene.frame(number))
            assert [face.track for face in faces] == [1, 2]
            assert faces[0].landmarks_image[:, 1].mean() < 100 < faces[1].landmarks_image[:, 1].mean()

    def test_faces_that_come_in_are_found_at_the_next_look(self):
        scene = Scene(walking(step=0, y=50), lambda n: face_landmarks((170, 150), 60, 3) if n >= 4 else None)
        tracker = FaceTracker(scene.predictor, smooth=False, detect_every=5)
        tracks = [[face.track for face in tracker(scene.frame(number))] for number in range(8)]
        assert tracks == [[1]] * 5 + [[1, 2]] * 3

    def test_a_face_that_vanishes_is_given_up_and_comes_back_as_another(self):
        scene = Scene(lambda n: None if 3 <= n < 6 else face_landmarks((120, 100), 60))
        scene.found_from = 0
        tracker = FaceTracker(scene.predictor, smooth=False, detect_every=100)
        tracks = [[face.track for face in tracker(scene.frame(number))] for number in range(9)]
        assert tracks[:6] == [[1], [1], [1], [], [], []]
        assert len(tracks[6]) == 1
        assert tracks[6][0] > 1
        assert tracks[6] == tracks[8]

    def test_while_there_is_none_every_frame_is_searched(self):
        scene = Scene(walking())
        scene.found_from = 4
        tracker = FaceTracker(scene.predictor, detect_every=100)
        assert [len(tracker(scene.frame(number))) for number in range(6)] == [0, 0, 0, 0, 1, 1]
        assert scene.looks == 5

    def test_two_tracks_on_one_face_become_one(self):
        """Where one face hides the other, both tracks end up on it: the older stays."""
        scene = Scene(walking(start=120, step=0), walking(start=144, step=0))
        tracker = FaceTracker(scene.predictor, smooth=False, detect_every=100)
        assert [face.track for face in tracker(scene.frame(0))] == [1, 2]
        frame = scene.frame(1)
        scene.net.faces = scene.net.faces[:1]
        faces = scene.predictor.faces_in_boxes([Photograph(frame.pixels)], [[track.box for track in tracker._tracks]])
        assert np.abs(faces[0][1].landmarks_image - scene.net.faces[0]).max() < 0.5  # the second runs onto the first
        assert [face.track for face in tracker(frame)] == [1]

    @pytest.mark.parametrize(("peak", "kept"), [(0.45, 1), (0.2, 0)])
    def test_a_face_is_given_up_when_the_network_is_unsure(self, peak, kept):
        scene = Scene(walking(step=0))
        tracker = FaceTracker(scene.predictor, detect_every=100)
        assert len(tracker(scene.frame(0))) == 1
        scene.found_from = 100
        frame = scene.frame(1)
        scene.net.peak = peak
        assert len(tracker(frame)) == kept

    def test_smoothing_stills_a_still_face_without_losing_it(self):
        rng = np.random.default_rng(0)
        rest = face_landmarks((120, 100), 100)
        noisy = [rest + rng.normal(0, 0.4, rest.shape) for _ in range(60)]
        results = {}
        for smooth in (False, True):
            scene = Scene(lambda number: noisy[number])
            tracker = FaceTracker(scene.predictor, smooth=smooth)
            results[smooth] = np.array([tracker(scene.frame(i))[0].landmarks_image for i in range(60)])
        jitter = {smooth: np.diff(points[20:], axis=0).std() for smooth, points in results.items()}
        assert jitter[True] < jitter[False] / 3
        assert np.abs(results[True][-1] - rest).max() < 0.8

    def test_every_track_has_its_own_filter(self):
        scene = Scene(walking(step=0, y=50), lambda n: face_landmarks((170, 150), 60, 3) if n >= 2 else None)
        tracker = FaceTracker(scene.predictor, detect_every=2)
        for number in range(6):
            faces = tracker(scene.frame(number))
        assert np.abs(faces[1].landmarks_image - face_landmarks((170, 150), 60, 3)).max() < 0.5

    def test_detect_every(self):
        with pytest.raises(ValueError, match="detect_every=0"):
            FaceTracker(Scene(walking()).predictor, detect_every=0)
