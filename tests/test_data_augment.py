import albumentations as A
import cv2
import numpy as np
import pytest

from facelm.data.augment import Augmentation, GeometricDraw, GeometricRanges, displacement


def draws(ranges, count=4000):
    return [ranges.draw(np.random.default_rng((0, i))) for i in range(count)]


class TestGeometricRanges:
    def test_defaults_are_mmpose(self):
        drawn = draws(GeometricRanges())
        zooms = np.array([d.zoom for d in drawn])
        turns = np.array([d.rotation for d in drawn])
        assert zooms.std() == pytest.approx(0.25 * 0.539560, rel=0.05)  # uniform would be 0.1443
        assert np.abs(zooms - 1).max() <= 0.25
        assert np.mean(turns == 0) == pytest.approx(0.4, abs=0.03)
        assert turns[turns != 0].std() == pytest.approx(60 * 0.539560, rel=0.05)
        assert np.mean([d.flip for d in drawn]) == pytest.approx(0.5, abs=0.03)
        assert {d.shift for d in drawn} == {(0.0, 0.0)}

    def test_uniform_is_the_authors(self):
        ranges = GeometricRanges(distribution="uniform", rotation=30.0)
        drawn = draws(ranges)
        assert np.std([d.zoom for d in drawn]) == pytest.approx(0.25 / np.sqrt(3), rel=0.05)
        assert max(abs(d.rotation) for d in drawn) == pytest.approx(30, abs=0.5)

    def test_nothing(self):
        none = GeometricRanges(flip_probability=0, zoom=0, rotation=0, rotation_probability=0)
        assert none.draw(np.random.default_rng(0)) == GeometricDraw()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"flip_probability": 1.5}, r"flip_probability is a probability in \[0, 1\], got 1.5"),
            ({"zoom": 1.0}, r"zoom must lie in \[0, 1\)"),
            ({"distribution": "normal"}, "truncated_normal, uniform; got 'normal'"),
        ],
    )
    def test_impossible_values(self, change, message):
        with pytest.raises(ValueError, match=message):
            GeometricRanges(**change)


class TestTransforms:
    def crop(self):
        return np.full((32, 32, 3), 100, np.uint8)

    def test_same_generator_same_picture(self):
        augmentation = Augmentation(geometry=GeometricRanges(), transforms=[A.GaussNoise(p=1.0)])
        one = augmentation.paint(self.crop(), np.random.default_rng((1, 2)))
        # The transforms' own streams have moved on: only the seed given each time makes the next call equal.
        other = augmentation.paint(self.crop(), np.random.default_rng((1, 2)))
        different = augmentation.paint(self.crop(), np.random.default_rng((1, 3)))
        np.testing.assert_array_equal(one, other)
        assert not np.array_equal(one, different)

    def test_a_copy_as_in_another_worker_draws_the_same(self):
        import copy

        augmentation = Augmentation(geometry=GeometricRanges(), transforms=[A.GaussNoise(p=1.0)])
        worker = copy.deepcopy(augmentation)
        augmentation.paint(self.crop(), np.random.default_rng(0))
        np.testing.assert_array_equal(
            augmentation.paint(self.crop(), np.random.default_rng(5)),
            worker.paint(self.crop(), np.random.default_rng(5)),
        )

    @pytest.mark.parametrize("transform", [A.HorizontalFlip(), A.Affine(), A.Resize(16, 16)])
    def test_transforms_that_move_pixels_are_refused(self, transform):
        with pytest.raises(ValueError, match="moves pixels but not the landmarks"):
            Augmentation(geometry=GeometricRanges(), transforms=[A.OneOf([transform], p=0.5)])

    @pytest.mark.parametrize("transform", [A.Normalize(), A.ToFloat()])
    def test_other_numbers_than_a_picture_s_are_refused(self, transform):
        augmentation = Augmentation(geometry=GeometricRanges(), transforms=[transform])
        with pytest.raises(ValueError, match=r"turn a crop of uint8 \(.*\) into float32"):
            augmentation.paint(self.crop(), np.random.default_rng(0))

    def test_occluders_and_colour_are_allowed(self):
        Augmentation(
            geometry=GeometricRanges(), transforms=[A.CoarseDropout(), A.ToGray(), A.OneOf([A.GaussianBlur()])]
        )

    def test_transforms_act_independently(self):
        """Of two with probability one half, a quarter of the faces get both, and a quarter neither."""
        lighter = A.RandomBrightnessContrast(brightness_limit=(0.2, 0.2), contrast_limit=(0, 0), p=0.5)
        augmentation = Augmentation(geometry=GeometricRanges(), transforms=[lighter, A.InvertImg(p=0.5)])
        grey = np.full((8, 8, 3), 100, np.uint8)
        seen = [int(augmentation.paint(grey, np.random.default_rng(i))[0, 0, 0]) for i in range(400)]
        shares = [seen.count(value) / 400 for value in sorted(set(seen))]
        assert shares == pytest.approx([0.25] * 4, abs=0.08), sorted(set(seen))


class TestStayingInPlace:
    """A photometric transform that moves the picture moves it away from its landmarks."""

    def test_motion_blur_is_refused_unless_it_stays(self):
        with pytest.raises(ValueError, match="MotionBlur, which moves a painted dot"):
            Augmentation(geometry=GeometricRanges(), transforms=[A.OneOf([A.MotionBlur(blur_limit=(3, 9), p=0.1)])])
        still = A.MotionBlur(blur_limit=(3, 9), allow_shifted=False, direction_range=(0, 0))
        assert displacement(still) < 0.05
        Augmentation(geometry=GeometricRanges(), transforms=[still])

    @pytest.mark.parametrize(
        "moved",
        [
            lambda image, **_: np.ascontiguousarray(image[:, ::-1]),
            lambda image, **_: np.ascontiguousarray(image.transpose(1, 0, 2)),
            lambda image, **_: cv2.warpAffine(image, cv2.getRotationMatrix2D((64, 64), 0, 1.05), image.shape[:2]),
        ],
        ids=["flipped", "transposed", "zoomed"],
    )
    def test_of_one_s_own_that_leave_the_middle_where_it_is(self, moved):
        with pytest.raises(ValueError, match="which moves a painted dot"):
            Augmentation(geometry=GeometricRanges(), transforms=[A.Lambda(image=moved)])

    def test_that_move_now_and_then(self):
        class Seldom(A.ImageOnlyTransform):
            def apply(self, img, **_):
                return np.roll(img, 5, axis=1) if self.py_random.random() < 0.3 else img

        with pytest.raises(ValueError, match="Seldom, which moves a painted dot"):
            Augmentation(geometry=GeometricRanges(), transforms=[Seldom(p=0.1)])

    def test_light_noise_and_compression_do_not_count_as_movement(self):
        for transform in (
            A.RandomBrightnessContrast(0.5, 0.5),
            A.GaussNoise(std_range=(0.1, 0.2)),
            A.ImageCompression(quality_range=(20, 40)),
            A.GaussianBlur(blur_limit=(3, 9)),
            A.RandomGamma(),
            A.ISONoise(),
            A.CLAHE(),
            A.AutoContrast(),
            A.ToGray(),
        ):
            assert displacement(transform) < 0.2, transform
