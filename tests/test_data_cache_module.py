"""The crop cache as a training uses it."""

import pytest
import torch

from facelm.data.augment import Augmentation, GeometricRanges
from facelm.data.datamodule import FaceDataModule
from facelm.data.storage.cache import CropCache
from facelm.data.w300.index import index_faces
from w300_tree import write_tree

AUGMENTATION = Augmentation(geometry=GeometricRanges())


def module(root, cache, tmp_path):
    data = FaceDataModule(
        root=str(root),
        crop_size=64,
        augmentation=AUGMENTATION,
        batch_size=2,
        num_workers=0,
        cache=cache,
        cache_dir=str(tmp_path / "cache"),
    )
    data.setup()
    return data


@pytest.fixture
def root(tmp_path):
    write_tree(tmp_path / "300w", [f"afw/{i}_1" for i in range(4)] + ["ibug/1"], ending=".png")
    return tmp_path / "300w"


@pytest.mark.filterwarnings("ignore:300W is incomplete")
def test_batches_with_and_without(root, tmp_path):
    cached, plain = (module(root, cache, tmp_path) for cache in ("disk", "none"))
    assert len([path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]) == 2
    for loader in ("train_dataloader", "val_dataloader"):
        for one, other in zip(getattr(cached, loader)(), getattr(plain, loader)(), strict=True):
            difference = (one["image"].int() - other["image"].int()).abs()
            assert difference.max() <= (0 if loader == "val_dataloader" else 8)
            torch.testing.assert_close(one["landmarks_crop"], other["landmarks_crop"], rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:300W is incomplete")
def test_reports_read_the_photographs(root, tmp_path):
    data = module(root, "disk", tmp_path)
    assert not isinstance(data.faces_loader(index_faces(root, "challenge")).dataset.source, CropCache)


def test_unknown_kind():
    with pytest.raises(ValueError, match=r"data.cache='ram' is none of none, raw, jpeg, auto"):
        FaceDataModule(root="x", crop_size=64, cache="ram")
