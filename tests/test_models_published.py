"""Checkpoints of mmpose's zoo, made up in its key names: each is evaluated with what it was trained for."""

import pytest
import torch

from conftest import compose
from facelm.geometry.landmarks import get_scheme
from facelm.launch.build import model_spec
from facelm.launch.paths import CONF_DIR
from facelm.models import build_model
from facelm.models.download import web_address
from facelm.models.loading import load_model
from facelm.models.published import MMPOSE, ZOO
from tiny_networks import as_written_by


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Writes a checkpoint of HRNetV2-W18 with so many landmarks, as mmpose 0.x does; gives its path."""
    folder, net = tmp_path_factory.mktemp("zoo"), build_model("hrnetv2_w18", 1)

    def write(name, points):
        net.head[3] = torch.nn.Conv2d(270, points, 1)
        torch.save(as_written_by("mmpose-0.x", net), folder / name)
        return folder / name

    return write


@pytest.mark.parametrize("known", ZOO, ids=lambda known: known.name)
def test_a_file_says_by_its_name_what_it_means(write, known):
    model = load_model(write(known.file, known.num_landmarks))
    spec = model.spec
    assert spec.landmark_scheme() == get_scheme(known.scheme)
    assert spec.landmark_scheme().num_landmarks == known.num_landmarks
    assert (spec.codec, spec.flip, spec.pixel_origin, spec.crop_scale) == (known.codec, "shifted", 1, 1.25)
    assert spec.codec["name"] == ("dark" if known.name.endswith("dark") else "mmpose")
    assert model.published == known.nme
    assert model.net(torch.zeros(1, 3, 64, 64)).shape == (1, known.num_landmarks, 16, 16)


@pytest.mark.parametrize(("points", "scheme", "sigma"), [(98, "wflw98", 2.0), (29, "cofw29", 1.5), (19, "aflw19", 2.0)])
def test_one_s_own_from_mmpose_is_known_by_its_number_of_points(write, points, scheme, sigma):
    model = load_model(write("epoch_60.pth", points))
    assert model.spec.landmark_scheme().name == scheme
    assert model.spec.codec == {"name": "mmpose", "sigma": sigma}
    assert model.published == {}


@pytest.mark.parametrize("known", [MMPOSE, *ZOO], ids=lambda known: known.name)
def test_names_stand_for_addresses(known):
    assert web_address(f"mmpose://{known.name}") == known.source
    assert known.source.endswith(known.file)
    with pytest.raises(ValueError, match="mmpose://wflw_hrnetv2_w18"):
        web_address("mmpose://something")


@pytest.mark.parametrize("known", ZOO, ids=lambda known: known.name)
def test_the_experiment_of_that_name_trains_such_weights(known):
    spec = model_spec(compose("train", f"experiment={known.name}"))
    assert (spec.architecture, spec.scheme) == (known.architecture, get_scheme(known.scheme))
    assert (spec.codec, spec.flip, spec.crop_size, spec.crop_scale) == (known.codec, known.flip, 256, 1.25)
    assert spec.pixel_origin == known.pixel_origin
    head = (CONF_DIR / "experiment" / f"{known.name}.yaml").read_text().partition("defaults:")[0]
    for subset, nme in known.nme.items():
        assert f"{subset} {nme:.2f}" in head
