"""What model files say is of the right type and in range, or one sentence; damage at random places ends as well."""

import json
import random

import pytest
import torch

from facelm.models.cards import card_path, read_card, write_card
from facelm.models.loading import load_model
from facelm.models.spec import ModelSpec, checkpoint_facts, read_facts, write_checkpoint
from facelm.models.weights import load_weights, save_weights
from perfect_network import SPEC

NAN, INF = float("nan"), float("inf")


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "change",
    [
        {"std": [0, 0, 0]}, {"std": [NAN, 1, 1]}, {"std": [-1, 1, 1]}, {"std": 5}, {"std": [1, 1]},
        {"mean": [INF, 0, 0]},
        {"mean": ["a", "b", "c"]}, {"crop_scale": NAN}, {"crop_scale": 0}, {"crop_scale": -1}, {"crop_scale": True},
        {"crop_scale": "1"}, {"crop_size": 0}, {"crop_size": 2**70}, {"crop_size": 64.0}, {"crop_size": 10**9 * 32},
        {"architecture": []}, {"architecture": {}}, {"scheme": {}}, {"flip": ["none"]}, {"codec": 5}, {"codec": {1: 2}},
        {"codec": {"name": "dark", "sigma": "x"}}, {"codec": {"name": "dark", "sigma": NAN}}, {"codec": {"name": []}},
        {"codec": {"name": "subpixel", "radius": 1.5}}, {"codec": nested(50)}, {"annotation_shift": 10**400},
        {"pixel_origin": True}, {"pixel_origin": 1.0}, {"version": 3}, {"version": "x" * 1000},
    ],
)  # fmt: skip
def test_odd_values_of_a_spec(change):
    with pytest.raises(ValueError):
        ModelSpec.from_dict({**SPEC.to_dict(), **change})


@pytest.mark.parametrize(
    "change",
    [
        {"spec": 5}, {"spec": []}, {"mean_shape": [[1]]}, {"mean_shape": 3}, {"mean_shape": [[NAN, 0]] * 68},
        {"mean_shape": [[1e9, 0]] * 68}, {"mean_shape": [[0, 0]] * 5}, {"config": 5}, {"config": nested(100)},
        {"config": {"a": torch.zeros(1)}}, {"run": 5}, {"run": {"id": 5}}, {"run": {"entity": "../x"}},
        {"position": 5}, {"position": {"epoch": -1}}, {"position": {"batches": "x"}}, {"position": {"epoch": NAN}},
    ],
)  # fmt: skip
def test_odd_values_of_a_checkpoint(change):
    with pytest.raises(ValueError, match="what 'x.ckpt' says of its weights cannot be used"):
        read_facts({"facelm": {**checkpoint_facts(SPEC, {}), **change}}, "x.ckpt")


@pytest.mark.parametrize(
    "change",
    [
        {"nme": [1]}, {"nme": {"a": "b"}}, {"nme": {"a": NAN}}, {"nme": {"a": -1}}, {"sha256": 5}, {"sha256": "ab"},
        {"data": 5}, {"recipe": []}, {"spec": nested(500)}, {"licence": None},
        {"_target_": "os.system"},
    ],
)  # fmt: skip
def test_odd_values_of_a_card(tmp_path, change):
    path = tmp_path / "w.safetensors"
    save_weights(SPEC.build_network(), path)
    write_card(path, SPEC)
    card_path(path).write_text(json.dumps({**json.loads(card_path(path).read_text()), **change}))
    with pytest.raises(ValueError, match=r"the card '.*' cannot be used"):
        read_card(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "", "null", "[]", '"x"', "\0"])
def test_a_card_that_is_no_card(tmp_path, text):
    path = tmp_path / "w.safetensors"
    save_weights(SPEC.build_network(), path)
    card_path(path).write_text(text)
    with pytest.raises(ValueError, match=r"the card '.*' cannot be used"):
        read_card(path)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """`content` with bits flipped, cut off, cut out, overwritten, or parts exchanged."""
    kind, data = draw.randrange(5), bytearray(content)
    start = draw.choice([draw.randrange(len(data)), draw.randrange(min(400, len(data))), len(data) - 1])
    length = draw.randrange(1, 200)
    if kind == 0:
        for _ in range(draw.randrange(1, 4)):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del data[start:]
    elif kind == 2:
        del data[start : start + length]
    elif kind == 3:
        data[start : start + length] = draw.randbytes(length)
    else:
        other = draw.randrange(len(data))
        data[start : start + length] = data[other : other + length]
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["w.ckpt", "bare.pth", "w.pth", "w.safetensors", "card"])
def test_damage_at_random_places(tmp_path, name):
    """Refused in words, or loaded as the very weights; the seed and the number of tries are fixed."""
    net = SPEC.build_network()
    path = tmp_path / (name if name != "card" else "w.safetensors")
    if name == "w.ckpt":
        state = {f"net.{key}": value for key, value in net.state_dict().items()}
        write_checkpoint({"state_dict": state, "facelm": checkpoint_facts(SPEC, {"data": {"root": "x"}})}, path)
    else:
        save_weights(net, path)
    if name in ("w.pth", "w.safetensors", "card"):
        write_card(path, SPEC)
    target = card_path(path) if name == "card" else path
    whole, expected, draw = target.read_bytes(), net.state_dict(), random.Random(name)
    said, other = [], SPEC.build_network()
    for turn in range(1500):
        target.write_bytes(damaged(whole, draw))
        try:
            if name == "bare.pth":
                load_weights(other, path)
            loaded = (other if name == "bare.pth" else load_model(path).net).state_dict()
        except (ValueError, OSError) as error:
            said.append(str(error))
        else:
            assert all(torch.equal(loaded[key], value) for key, value in expected.items()), turn
    assert said
    assert not [one for one in said if "weights_only" in one or "torch.load" in one]
