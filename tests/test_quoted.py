"""Values that hold Hydra's own characters: they are read as typed, or the message shows how to type them."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from conftest import compose
from facelm.data.datamodule import FaceDataModule
from facelm.launch.errors import sentence
from facelm.launch.quoted import as_value, quoted

ODD = ["a=b", "c[1]", "d#1", "e(1)", "f g", "h,i", "~/300w", "k'l", 'm"n', "o\\p", 'q\\"r', "s\\", "{t}", "u:v", "$w"]


@pytest.mark.parametrize("name", ODD)
def test_the_quoted_form_is_read_as_it_was_meant(name):
    (typed,) = shlex.split(quoted("data.root", f"/data/{name}"))
    assert OverridesParser.create().parse_override(typed).value() == f"/data/{name}"
    assert compose("train", typed).data.root == f"/data/{name}"
    unshelled = f"data.root={as_value(f'/data/{name}')}"
    assert OverridesParser.create().parse_override(unshelled).value() == f"/data/{name}"


@pytest.mark.parametrize("name", ["a=b", "c[1]", "d#1", "e(1)", "~/300w"])
def test_the_message_shows_it(name):
    with pytest.raises(OverrideParseException) as caught:
        compose("train", f"data.root={name}")
    said = sentence(caught.value)
    assert said.startswith(f"data.root={name}: ")
    assert said.endswith(quoted("data.root", name))


def test_what_is_no_override_gets_no_advice_to_quote():
    with pytest.raises(OverrideParseException) as caught:
        compose("train", "?!")
    assert sentence(caught.value).endswith("data.root=data/300w")


def test_a_home_folder_in_quotes(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FaceDataModule(root="~/300w", crop_size=64).root == tmp_path / "300w"
