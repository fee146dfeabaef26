import json

import pytest

from facelm.models import download, load_weights, save_weights
from facelm.models.cards import read_card, write_card
from facelm.models.download import local_file, shipped_names
from facelm.models.loading import load_model
from facelm.predict import Predictor
from perfect_network import SPEC

FACTS = {"nme": {"common": 2.9}, "data": "drawn faces", "licence": "Apache-2.0", "recipe": "demo", "commit": "abc"}


def ship(folder, name="hrnet_test"):
    """Weights and card of a model with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_weights(SPEC.build_network(), path)
    write_card(path, SPEC, **FACTS)
    return path


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SHIPPED", tmp_path / "weights")
    return ship(tmp_path / "weights")


class TestCard:
    def test_comes_back(self, tmp_path):
        path = ship(tmp_path)
        card = read_card(path)
        assert card.spec == SPEC
        assert {name: getattr(card, name) for name in FACTS} == FACTS

    def test_no_card(self, tmp_path):
        assert read_card(tmp_path / "a.safetensors") is None
        for name in ("a.json", "a.ckpt.json"):
            (tmp_path / name).write_text("{}")
        assert read_card(tmp_path / "a.ckpt") is None

    def test_of_a_torch_file_it_has_a_name_of_its_own(self, tmp_path):
        """A .safetensors file of the same name keeps its card."""
        safe = ship(tmp_path)
        torch_file = tmp_path / "hrnet_test.pth"
        save_weights(SPEC.build_network(), torch_file)
        assert read_card(torch_file) is None
        write_card(torch_file, SPEC, data="others")
        assert (read_card(torch_file).data, read_card(safe).data) == ("others", FACTS["data"])

    def test_of_other_weights(self, tmp_path):
        path, other = ship(tmp_path), ship(tmp_path, "other")
        path.write_bytes(other.read_bytes()[:-4] + b"\0\0\0\0")
        with pytest.raises(ValueError, match=r"hrnet_test\.safetensors' has the SHA-256 .* damaged or replaced"):
            read_card(path)

    @pytest.mark.parametrize("change", [{"spec": {}}, {"spec": None}, {"colour": "red"}, {"nme": {}, "spec": 3}])
    def test_damaged(self, tmp_path, change):
        path = ship(tmp_path)
        content = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match=r"the card '.*hrnet_test\.json' cannot be used"):
            read_card(path)

    def test_no_json(self, tmp_path):
        path = ship(tmp_path)
        path.with_suffix(".json").write_text('{"spec": ')
        with pytest.raises(ValueError, match="cannot be used"):
            read_card(path)


class TestNames:
    def test_shipped(self, shipped):
        assert shipped_names() == ["hrnet_test"]
        assert local_file("hrnet_test") == shipped

    def test_unknown_lists_what_there_is(self, shipped):
        with pytest.raises(FileNotFoundError, match=r"no weights at 'hrnet'\. Shipped models: hrnet_test; or give"):
            local_file("hrnet")

    def test_without_any(self, tmp_path, monkeypatch):
        monkeypatch.setattr(download, "SHIPPED", tmp_path)
        with pytest.raises(FileNotFoundError, match="This installation ships no weights; or give a file"):
            local_file("hrnetv2_w18")

    def test_a_checkout_has_those_that_are_kept_too(self, shipped, tmp_path, monkeypatch):
        """They are no part of the package: nothing lists them, and what ships wins."""
        monkeypatch.setattr(download, "KEPT", tmp_path / "kept")
        kept = [ship(tmp_path / "kept", name) for name in ("hrnet_earlier", "hrnet_test")]
        assert local_file("hrnet_earlier") == kept[0]
        assert local_file("hrnet_test") == shipped
        assert shipped_names() == ["hrnet_test"]

    def test_a_file_beside_is_no_shipped_model(self, shipped, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "hrnet").touch()
        assert local_file("hrnet").resolve() == tmp_path / "hrnet"

    def test_training_starts_from_one(self, shipped):
        net = SPEC.build_network()
        assert not load_weights(net, "hrnet_test").missing

    def test_every_shipped_model_has_whole_weights(self):
        for name in shipped_names():
            card = read_card(download.SHIPPED / f"{name}.safetensors")
            assert card.nme
            assert all([card.data, card.licence, card.recipe, card.commit])


class TestLoading:
    def test_by_name_and_by_path(self, shipped):
        for source in ("hrnet_test", shipped, str(shipped)):
            model = load_model(source)
            assert (model.spec, model.title, model.published) == (SPEC, "hrnet_test", {"common": 2.9})
        assert Predictor.load("hrnet_test", device="cpu").spec.crop_size == SPEC.crop_size

    def test_changes(self, shipped):
        assert load_model("hrnet_test", flip="shifted").spec.flip == "shifted"
