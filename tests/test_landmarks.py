import numpy as np
import pytest

from facelm.geometry.landmarks import IBUG68, LandmarkScheme, box_size, get_scheme, interocular, interpupil


def scheme(**changes):
    entries = {
        "name": "three",
        "num_landmarks": 3,
        "mirror": (1, 0, 2),
        "regions": {"all": (0, 1, 2)},
        "outer_eyes": (0, 1),
        "eyes": ((0,), (1,)),
        "contours": ((0, 1, 2),),
    }
    return LandmarkScheme(**{**entries, **changes})


class TestScheme:
    def test_ibug68_has_its_symmetry_axis(self):
        fixed = [i for i in range(68) if IBUG68.mirror[i] == i]
        assert fixed == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]

    def test_regions_are_the_published_ones(self):
        ranges = {name: (min(i), max(i), len(i)) for name, i in IBUG68.regions.items()}
        assert ranges == {
            "jaw": (0, 16, 17),
            "brows": (17, 26, 10),
            "nose": (27, 35, 9),
            "eyes": (36, 47, 12),
            "mouth": (48, 67, 20),
        }

    def test_mirror_must_be_an_involution(self):
        with pytest.raises(ValueError, match="swap pairs"):
            scheme(mirror=(1, 2, 0))

    def test_regions_must_divide_the_indices(self):
        with pytest.raises(ValueError, match="exactly once"):
            scheme(regions={"a": (0, 1), "b": (1, 2)})

    def test_outer_eyes_must_mirror_each_other(self):
        with pytest.raises(ValueError, match="outer_eyes"):
            scheme(outer_eyes=(0, 2))

    def test_index_out_of_range(self):
        with pytest.raises(ValueError, match="out of range: 7"):
            scheme(contours=((0, 7),))

    def test_unknown_scheme_names_the_known(self):
        with pytest.raises(FileNotFoundError, match=r"known: aflw19, cofw29, ibug68, .* landmarks\.file="):
            get_scheme("wflw")


class TestNormalisers:
    def test_hand_computed(self):
        landmarks = np.zeros((1, 68, 2))
        landmarks[0, 36], landmarks[0, 45] = (10, 0), (13, 4)
        landmarks[0, 42:48] += (6, 0)  # every other point of the right eye is at (6, 0)
        landmarks[0, 36], landmarks[0, 45] = (10, 0), (13, 4)
        assert interocular(landmarks) == pytest.approx([5.0])
        left, right = np.array([10 / 6, 0]), np.array([(5 * 6 + 13) / 6, 4 / 6])
        assert interpupil(landmarks) == pytest.approx([np.linalg.norm(left - right)])
        assert box_size(landmarks) == pytest.approx([np.sqrt(13 * 4)])
