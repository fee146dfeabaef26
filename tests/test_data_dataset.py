import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from facelm.data.augment import Augmentation, GeometricRanges
from facelm.data.dataset import FaceDataset
from facelm.data.faces import Face
from facelm.data.sampler import EpochBatches
from facelm.geometry.boxes import box_from_landmarks
from facelm.geometry.landmarks import IBUG68


@pytest.fixture
def faces(tmp_path):
    """Five noise photographs with a white dot at every landmark, so that pixels can be checked against points."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(5):
        landmarks = rng.uniform(60, 240, (68, 2)).round()
        image = np.zeros((300, 300, 3), np.uint8)
        cv2.circle(image, tuple(int(v) for v in landmarks[30]), 3, (255, 255, 255), -1)
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), image)
        made.append(Face(f"afw/{i}", path, landmarks, box_from_landmarks(landmarks), "afw"))
    return made


def dataset(faces, **options):
    return FaceDataset(faces, crop_size=128, crop_scale=1.25, scheme=IBUG68, **options)


def all_draws():
    return Augmentation(geometry=GeometricRanges(shift=0.05))


class TestItem:
    def test_shapes_and_types(self, faces):
        item = dataset(faces)[0, 3]
        assert item["image"].shape == (128, 128, 3)
        assert item["image"].dtype == torch.uint8
        assert item["landmarks_crop"].dtype == torch.float32
        assert item["landmarks_image"].dtype == item["image_from_crop"].dtype == torch.float64
        assert item["index"] == 3

    @pytest.mark.parametrize("epoch", range(6))
    def test_pixels_and_landmarks_move_together(self, faces, epoch):
        item = dataset(faces, augmentation=all_draws())[epoch, 0]
        expected = item["landmarks_crop"][30].numpy()  # the tip of the nose is its own mirror image
        ys, xs = np.nonzero(item["image"][..., 0].numpy() > 100)
        np.testing.assert_allclose([xs.mean(), ys.mean()], expected, atol=0.7)

    def test_the_way_back_to_the_photograph(self, faces):
        item = dataset(faces, augmentation=all_draws())[1, 0]
        crop = np.c_[item["landmarks_crop"].double().numpy(), np.ones(68)]
        back = crop @ item["image_from_crop"].numpy().T
        same_order = np.allclose(back[:, :2], faces[0].landmarks_image, atol=1e-3)
        mirrored = np.allclose(back[:, :2], faces[0].landmarks_image[list(IBUG68.mirror)], atol=1e-3)
        assert same_order or mirrored

    def test_a_flip_swaps_left_and_right(self, faces):
        flip = Augmentation(geometry=GeometricRanges(flip_probability=1, zoom=0, rotation_probability=0))
        plain = dataset(faces)[0, 0]["landmarks_crop"]
        flipped = dataset(faces, augmentation=flip)[0, 0]["landmarks_crop"]
        torch.testing.assert_close(flipped[36, 0], 128 - plain[45, 0])
        torch.testing.assert_close(flipped[36, 1], plain[45, 1])


class TestDraws:
    def keys(self, faces, *, workers, epochs=2):
        data = dataset(faces, augmentation=all_draws(), seed=4)
        batches = EpochBatches(len(faces), 2, seed=4)
        loader = DataLoader(data, batch_sampler=batches, num_workers=workers)
        seen = {}
        for epoch in range(epochs):
            batches.set_epoch(epoch)
            for batch in loader:
                for index, image in zip(batch["index"].tolist(), batch["image"], strict=True):
                    seen[epoch, index] = image.numpy().tobytes()
        return seen

    def test_any_number_of_workers_sees_the_same_crops(self, faces):
        assert self.keys(faces, workers=0) == self.keys(faces, workers=2)

    def test_every_epoch_and_face_has_its_own_draw(self, faces):
        seen = self.keys(faces, workers=2, epochs=3)
        assert len(set(seen.values())) == 15
