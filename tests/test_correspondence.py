"""Points of one scheme as those of another: the files that come with facelm, one's own, and models measured by them."""

import json

import numpy as np
import pytest
import torch
import yaml

import warm
from facelm.evaluation.scores import face_errors
from facelm.geometry.correspondence import correspondence, known_correspondences
from facelm.geometry.landmarks import get_scheme
from facelm.models.spec import ModelSpec, checkpoint_facts
from own_data import NAMES, PICKED, SCHEME
from tiny_networks import tiny

MINE = get_scheme(SCHEME)
SAME = {"schemes": ["mine.yaml", "ibug68"], "same": {"all": [list(range(20)), PICKED]}}


@pytest.fixture
def own_file(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SCHEME))

    def write(**change):
        path = tmp_path / "mine to ibug68.yaml"
        path.write_text(yaml.safe_dump({**SAME, **change}))
        return path

    return write


@pytest.mark.parametrize("name", known_correspondences())
def test_those_that_come_with_facelm(name):
    """Both ways, and the points lie in the same places of the plain faces that the schemes say."""
    source, target = map(get_scheme, name.split("_"))
    same, back = correspondence(source, target.name), correspondence(target, source)
    assert {(other, one) for one, other in same.pairs} == set(back.pairs)
    assert same.compared.sum() == len(same.pairs) > 10
    away = np.linalg.norm(same.mapped(np.array(source.shape)) - np.array(target.shape), axis=1)
    width = np.ptp(np.array(target.shape), axis=0)[0]
    assert np.nanmax(away) < 0.02 * width
    assert np.isnan(away).sum() == (~same.compared).sum()
    for eyes in zip(source.outer_eyes, target.outer_eyes, strict=True):
        assert eyes in same.pairs


def test_names_that_both_have():
    other = get_scheme({**SCHEME, "name": "other", "points": [*NAMES[10:14], "left_ear", "right_ear"],
                        "mirror": [[0, 3], [1, 2], [4, 5]], "outer_eyes": [0, 3]})  # fmt: skip
    assert correspondence(MINE, other).pairs == ((10, 0), (11, 1), (12, 2), (13, 3))
    assert correspondence(MINE, MINE).compared.all()


def test_one_s_own_file_from_either_side(own_file):
    path = own_file()
    pairs = tuple(zip(range(20), PICKED, strict=True))
    assert correspondence(MINE, path).pairs == pairs
    assert correspondence(get_scheme("ibug68"), str(path)).pairs == tuple((b, a) for a, b in pairs)
    assert correspondence(get_scheme("ibug68"), path).target == MINE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"same": {"eyes": [[10], [36]]}}, "10 is 36, but their mirror images 13 and 45 are no pair"),
        ({"same": {"chin": [[1, 1], [8, 9]]}}, "point 1 of mine20 is in two pairs"),
        ({"same": {"chin": [[1], [68]]}}, "ibug68 has no point 68, its last is 67"),
        ({"same": {"chin": [[1], ["8-9"]]}}, "same.chin has 1 points of one scheme and 2 of the other"),
        ({"same": {"chin": [1, 8, 3]}}, "a list of two lists"),
        ({"same": {}}, "none is the same"),
        ({"schemes": ["wflw98", "ibug68"]}, "about wflw98 and ibug68, not about mine20"),
        ({"schemes": ["ibug68"]}, "schemes are two"),
        ({"schemes": ["gone.yaml", "ibug68"]}, "no landmark scheme"),
        ({"sane": {}}, "unknown entries: 'sane'"),
    ],
)
def test_what_is_wrong_with_a_file(own_file, change, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        correspondence(MINE, own_file(**change))


def test_nothing_says_which_points_are_the_same():
    with pytest.raises(ValueError, match="which points of mine20 and ibug68 are the same.*wflw98_ibug68"):
        correspondence(MINE, "ibug68")


def test_points_without_a_counterpart_do_not_count():
    """The normalisers are those of the whole annotation."""
    same, scheme = correspondence(get_scheme("wflw98"), "ibug68"), get_scheme("ibug68")
    target = np.array(scheme.shape, float)[None]
    predicted = same.mapped(np.array(get_scheme("wflw98").shape, float)[None]) + np.array([3.0, 4.0])
    found = face_errors(predicted, target, scheme, compared=same.compared)
    assert found.nme == pytest.approx(5 / 92)
    assert found.regions["jaw"] == pytest.approx(5 / 92)  # of the chin alone
    centres = [target[0, list(eye)].mean(axis=0) for eye in scheme.eyes]
    assert found.nme_interpupil == pytest.approx(5 / np.linalg.norm(centres[0] - centres[1]))
    jawless = face_errors(predicted, target, scheme, compared=same.compared & (np.arange(68) != 8))
    assert "jaw" not in jawless.regions


@pytest.fixture(scope="module")
def of_wflw(tmp_path_factory):
    """A checkpoint of WFLW's points."""
    spec = ModelSpec(architecture="hrnetv2_tiny", scheme=get_scheme("wflw98"), crop_size=64, codec={"name": "subpixel"})
    path = tmp_path_factory.mktemp("wflw") / "wflw.ckpt"
    state = {f"net.{key}": value for key, value in tiny(num_landmarks=98).state_dict().items()}
    torch.save({"state_dict": state, "facelm": checkpoint_facts(spec, {})}, path)
    return path


def evaluated(*typed):
    return warm.run(["-m", "facelm.evaluate", "data.num_workers=0", *typed])


def test_a_model_is_measured_on_another_scheme_s_points(of_wflw, drawn_root, tmp_path):
    typed = [f"checkpoint={of_wflw}", f"data.root={drawn_root}", "as=ibug68", f"hydra.run.dir={tmp_path}"]
    done = evaluated(*typed, f"report_dir={tmp_path / 'report'}")
    assert done.returncode == 0, done.stderr[-3000:]
    count = len(correspondence(get_scheme("wflw98"), "ibug68").pairs)
    assert f"{count} of the 68 points of ibug68, those that wflw98 has too" in done.stdout
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["subsets"]["common"]["n"] == 6
    assert summary["subsets"]["common"]["nme"] > 0
    assert "unmeasured" not in summary["subsets"]["common"]


def test_what_is_refused(of_wflw, drawn_root, tmp_path):
    here = f"hydra.run.dir={tmp_path}"
    done = evaluated(f"checkpoint={of_wflw}", f"data.root={drawn_root}", "as=aflw19", here)
    assert done.returncode == 1
    assert "nothing says which points of wflw98 and aflw19 are the same" in done.stderr
    assert "Traceback" not in done.stderr
    done = evaluated(f"checkpoint={of_wflw}", "as=ibug68", here)
    assert done.returncode == 1
    assert "as=ibug68 says what points the faces have" in done.stderr
