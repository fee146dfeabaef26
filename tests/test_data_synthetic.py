import time
import zlib

import cv2
import numpy as np
import pytest

from facelm.data.images import read_image
from facelm.data.synthetic import dataset as synthetic
from facelm.data.synthetic.dataset import draw_dataset, draw_face
from facelm.data.synthetic.folder import MARKER, Drawing
from facelm.data.w300.annotations import read_pts
from facelm.data.w300.index import index_faces
from facelm.data.w300.layout import SPLITS
from facelm.geometry.boxes import box_from_landmarks
from facelm.geometry.landmarks import interocular

pytestmark = pytest.mark.filterwarnings("ignore:300W is incomplete:UserWarning")

COUNTS = {"train": 240, "common": 120, "challenge": 100, "test": 8}
FEW = {"train": 5, "challenge": 2}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_dataset(tmp_path_factory.mktemp("data") / "drawn", counts=COUNTS)


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def landmarks_of(root, split):
    return np.array([face.landmarks_image for face in index_faces(root, split)])


def boxes_of(landmarks):
    boxes = [box_from_landmarks(face) for face in landmarks]
    return np.array([box.center for box in boxes])[:, None], np.array([box.side for box in boxes])[:, None, None]


class TestFace:
    def test_what_comes_out(self):
        image, landmarks = draw_face(np.random.default_rng(0), "common")
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert min(image.shape[:2]) >= 224
        assert landmarks.shape == (68, 2)
        assert landmarks.dtype == np.float64

    def test_the_generator_decides_everything(self):
        first, again, other = (draw_face(np.random.default_rng(seed), "challenge") for seed in (1, 1, 2))
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])
        assert not np.array_equal(first[1], other[1])

    def test_nothing_else_is_random(self):
        before = draw_face(np.random.default_rng(3))[0]
        np.random.seed(0)  # numpy's global stream must not matter
        np.testing.assert_array_equal(draw_face(np.random.default_rng(3))[0], before)

    def test_unknown_difficulty(self):
        with pytest.raises(ValueError, match=r"no difficulty 'hard'; known: common, challenge"):
            draw_face(np.random.default_rng(0), "hard")


class TestVariation:
    """The mean shape in the ground-truth box, which has learned nothing, must be as wrong as on real faces."""

    def mean_shape_nme(self, root, split):
        train, faces = landmarks_of(root, "train"), landmarks_of(root, split)
        centre, side = boxes_of(train)
        mean = ((train - centre) / side).mean(axis=0)
        centre, side = boxes_of(faces)
        return 100 * (np.linalg.norm(mean * side + centre - faces, axis=2).mean(axis=1) / interocular(faces)).mean()

    def test_common(self, drawn):
        assert 14 < self.mean_shape_nme(drawn, "common") < 21

    def test_challenge(self, drawn):
        assert 25 < self.mean_shape_nme(drawn, "challenge") < 41

    @pytest.mark.parametrize("split", ["train", "common", "challenge", "test"])
    def test_faces_fill_the_photograph_and_stay_in_it(self, drawn, split):
        for face in index_faces(drawn, split):
            height, width = read_image(face.image).shape[:2]
            assert 0.45 * min(width, height) < face.box.side < 0.7 * min(width, height)
            assert (face.landmarks_image >= 0).all()
            assert (face.landmarks_image <= np.array([width, height]) - 1).all()
        assert interocular(landmarks_of(drawn, split)).min() > 12

    def test_pictures_differ(self, drawn):
        small = [
            cv2.resize(read_image(f.image), (16, 16), interpolation=cv2.INTER_AREA)
            for f in index_faces(drawn, "common")
        ]
        pixels = np.array(small, dtype=float)
        assert pixels.std(axis=0).mean() > 25
        assert len({image.tobytes() for image in small}) == len(small)


class TestDataset:
    def test_every_split_can_be_indexed(self, drawn):
        assert {split: len(index_faces(drawn, split)) for split in SPLITS} == {**COUNTS, "full": 220}

    def test_folders_are_ibugs(self, drawn):
        folders = {path.parent.relative_to(drawn).as_posix() for path in drawn.rglob("*.pts")}
        assert folders == {
            *("afw", "helen/trainset", "helen/testset", "lfpw/trainset", "lfpw/testset", "ibug"),
            *("300W/01_Indoor", "300W/02_Outdoor"),
        }
        assert {path.suffix for path in drawn.rglob("*.*")} == {".jpg", ".png", ".pts", ".json"}

    def test_folders_share_a_split_as_ibugs_do(self):
        folders = Drawing.of({"train": 3148, "common": 554, "test": 600}, 0).folders()
        assert folders["afw"], folders["helen/trainset"] == (337, 2000)
        assert (folders["helen/testset"], folders["lfpw/testset"], folders["01_Indoor"]) == (330, 224, 300)
        assert Drawing.of({"train": 3}, 0).folders() == {"afw": 1, "helen/trainset": 2}

    def test_landmarks_are_stored_exactly(self, drawn):
        rng = np.random.default_rng([0, zlib.crc32(b"ibug"), 1])
        rng.random()  # decides how hard a face is
        image, landmarks = draw_face(rng, "challenge")
        stored = read_pts(drawn / "ibug/image_002_1.pts")
        np.testing.assert_allclose(stored, landmarks, atol=1e-12)
        written = read_image(drawn / "ibug/image_002_1.jpg").astype(float)
        assert np.abs(written - image).mean() < 8, "the photograph, but for JPEG's errors"

    def test_grey_photographs_are_stored_grey(self, drawn):
        images = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(drawn.rglob("*_1.jpg"))[:150]]
        assert 2 < sum(image.ndim == 2 for image in images) < 40

    def test_any_number_of_processes_draws_the_same(self, tmp_path):
        counts = {"train": 70, "common": 10}  # more than two batches, so that processes do start
        one = contents(draw_dataset(tmp_path / "one", counts=counts, processes=1))
        two = contents(draw_dataset(tmp_path / "two", counts=counts, processes=2))
        assert one == two

    def test_more_faces_keep_the_first_ones(self, drawn, tmp_path):
        few = contents(draw_dataset(tmp_path / "few", counts=FEW))
        many = contents(drawn)
        del few[MARKER]
        assert few.items() <= many.items()

    def test_another_seed_draws_others(self, tmp_path):
        first = contents(draw_dataset(tmp_path / "a", counts=FEW))
        other = contents(draw_dataset(tmp_path / "b", counts=FEW, seed=1))
        assert first.keys() == other.keys()
        assert all(first[name] != other[name] for name in first)

    def test_progress(self, tmp_path):
        seen = []
        draw_dataset(tmp_path / "drawn", counts={"train": 40}, progress=lambda *now: seen.append(now), processes=1)
        assert seen == [(32, 40), (40, 40)]

    def test_opencv_keeps_its_threads(self, tmp_path):
        before = cv2.getNumThreads()
        draw_dataset(tmp_path / "drawn", counts=FEW)
        assert cv2.getNumThreads() == before


class TestWhatIsThereAlready:
    def test_the_same_is_not_drawn_again(self, drawn, monkeypatch):
        monkeypatch.setattr(synthetic, "draw_face", lambda *_: pytest.fail("drew a face that was there"))
        assert draw_dataset(drawn, counts=COUNTS) == drawn

    def test_other_settings_replace_it(self, tmp_path):
        root = draw_dataset(tmp_path / "drawn", counts=FEW)
        draw_dataset(root, counts={"common": 2})
        assert len(index_faces(root, "common")) == 2
        assert not (root / "afw").exists()
        assert [path.name for path in tmp_path.iterdir()] == ["drawn"]

    def test_a_lost_photograph_is_drawn_again(self, tmp_path):
        root = draw_dataset(tmp_path / "drawn", counts=FEW)
        before = contents(root)
        (root / "ibug/image_001_1.jpg").unlink()
        assert contents(draw_dataset(root, counts=FEW)) == before

    def test_an_empty_folder_is_used(self, tmp_path):
        (tmp_path / "drawn").mkdir()
        assert len(index_faces(draw_dataset(tmp_path / "drawn", counts=FEW), "train")) == 5

    def test_data_of_others_is_not_touched(self, tmp_path):
        (tmp_path / "afw").mkdir()
        (tmp_path / "afw/mine.pts").write_text("dear to me")
        with pytest.raises(FileExistsError, match=r"holds other files than drawn faces .*Set another data\.root="):
            draw_dataset(tmp_path, counts=FEW)
        assert contents(tmp_path) == {"afw/mine.pts": b"dear to me"}

    def test_nor_is_what_others_put_beside_drawn_faces(self, tmp_path):
        root = draw_dataset(tmp_path / "drawn", counts=FEW)
        (root / "afw/mine.jpg").write_bytes(b"dear to me")
        before = contents(root)
        with pytest.raises(FileExistsError, match=r"also holds 1 files that were not drawn, e\.g\. .*mine\.jpg"):
            draw_dataset(root, counts={"common": 1})
        assert contents(root) == before
        assert draw_dataset(root, counts=FEW) == root, "the faces that are there can still be used"

    @pytest.mark.parametrize("text", ["", "[]", '{"drawn_by_facelm": {"counts": {"train": "x"}, "seed": 0}}'])
    def test_a_marker_of_something_else(self, tmp_path, text):
        (tmp_path / MARKER).write_text(text)
        with pytest.raises(FileExistsError, match="holds other files than drawn faces"):
            draw_dataset(tmp_path, counts=FEW)

    def test_a_file_is_in_the_way(self, tmp_path):
        (tmp_path / "drawn").write_text("")
        with pytest.raises(FileExistsError, match=r"drawn is a file; drawn faces need a folder"):
            draw_dataset(tmp_path / "drawn", counts=FEW)

    def test_nothing_half_done_stays(self, tmp_path, monkeypatch):
        root = draw_dataset(tmp_path / "drawn", counts=FEW)
        before = contents(root)
        left, draw = iter(range(3)), synthetic.draw_face

        def fail_at_the_fourth(*arguments):
            if next(left, None) is None:
                raise OSError("No space left on device")
            return draw(*arguments)

        monkeypatch.setattr(synthetic, "draw_face", fail_at_the_fourth)
        with pytest.raises(OSError, match="No space left"):
            draw_dataset(root, counts={"train": 9})
        with pytest.raises(OSError, match="No space left"):
            draw_dataset(tmp_path / "new", counts={"train": 9})
        assert contents(root) == before
        assert [path.name for path in tmp_path.iterdir()] == ["drawn"]

    def test_two_at_once(self, tmp_path):
        root = tmp_path / "drawn"

        def another_process(done, total):
            if done == total:
                draw_dataset(root, counts=FEW)

        draw_dataset(root, counts=FEW, progress=another_process)
        assert len(index_faces(root, "train")) == 5
        assert [path.name for path in tmp_path.iterdir()] == ["drawn"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": {"train": 1, "full": 3}}, r"counts name 'full'; drawn splits are train, common, challenge, test"),
        ({"counts": {"train": -1}}, r"train=-1 must be a whole number from 0 on"),
        ({"counts": {"train": 2.5}}, r"train=2\.5 must be a whole number from 0 on"),
        ({"counts": {"train": 0}}, r"ask for no face"),
        ({"counts": {"train": 1}, "seed": -4}, r"seed=-4 must be a whole number from 0 on"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        draw_dataset(tmp_path / "drawn", **options)
    assert not (tmp_path / "drawn").exists()


@pytest.mark.slow
def test_speed(tmp_path):
    seconds = []
    for seed in range(8):
        start = time.process_time()
        draw_dataset(tmp_path / str(seed), counts={"train": 50, "common": 10}, seed=seed, processes=1)
        seconds.append((time.process_time() - start) / 60)
    assert min(seconds) < 0.02  # half of the 100 faces a second that an idle core draws: test machines are shared
