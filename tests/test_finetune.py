"""Starting from weights of other points: what of the head is taken over, and a backbone that is frozen at first."""

from types import SimpleNamespace

import pytest
import torch
import yaml

from conftest import TINY, compose
from facelm.geometry.landmarks import get_scheme
from facelm.launch.build import build_network, model_spec
from facelm.models.loading import same_points
from facelm.models.spec import ModelSpec, checkpoint_facts
from facelm.models.weights import open_weights
from facelm.training.freezing import FrozenBackbone
from killed_run import fit
from own_data import NAMES, PICKED, SCHEME
from test_resume import assert_same, job, last
from tiny_networks import tiny

MINE = get_scheme(SCHEME)
FOUR = {**SCHEME, "name": "mine4", "points": NAMES[10:14], "mirror": [[0, 3], [1, 2]], "outer_eyes": [0, 3]}


def checkpoint(path, scheme, **facts):
    """A checkpoint of the tiny network for `scheme`."""
    spec = ModelSpec(architecture="hrnetv2_tiny", scheme=scheme, crop_size=64, codec={"name": "subpixel"})
    net = tiny(3, num_landmarks=scheme.num_landmarks)
    state = {f"net.{key}": value for key, value in net.state_dict().items()}
    torch.save({"state_dict": state, "facelm": checkpoint_facts(spec, {})}, path)
    return net


@pytest.fixture
def files(tmp_path):
    """mine.yaml, the scheme of 20 points, and same.yaml, which ones of ibug68's they are."""
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SCHEME))
    same = {"schemes": ["mine.yaml", "ibug68"], "same": {"all": [list(range(20)), PICKED]}}
    (tmp_path / "same.yaml").write_text(yaml.safe_dump(same))
    return tmp_path


class TestHead:
    def built(self, files, scheme, *typed):
        cfg = compose(
            "train", *TINY, "codec=subpixel", "landmarks=file", f"landmarks.file={files / scheme}",
            f"model.weights={files / 'start.ckpt'}", "seed=1", *typed,
        )  # fmt: skip
        torch.manual_seed(1)
        return build_network(cfg, model_spec(cfg))

    def test_filters_of_the_same_points_are_taken_over(self, files, caplog):
        source = checkpoint(files / "start.ckpt", get_scheme("ibug68"))
        caplog.set_level("INFO")
        net = self.built(files, "mine.yaml", f"same_points={files / 'same.yaml'}")
        assert torch.equal(net.head[3].weight, source.head[3].weight[PICKED])
        assert torch.equal(net.head[3].bias, source.head[3].bias[PICKED])
        assert torch.equal(net.conv1.weight, source.conv1.weight)
        assert "68 landmarks in the file, 20 here: 20 filters of the last convolution are taken over, 0" in caplog.text

    def test_by_the_names_that_both_have(self, files, caplog):
        (files / "four.yaml").write_text(yaml.safe_dump(FOUR))
        source = checkpoint(files / "start.ckpt", MINE)
        caplog.set_level("INFO")
        net = self.built(files, "four.yaml")
        assert torch.equal(net.head[3].weight, source.head[3].weight[10:14])
        assert "4 filters" in caplog.text

    def test_the_others_start_anew(self, files, caplog):
        other = {**FOUR, "name": "other", "points": ["chin", "nose_tip", "left_ear", "right_ear"], "mirror": [[2, 3]]}
        (files / "other.yaml").write_text(yaml.safe_dump({**other, "normaliser": "box", "outer_eyes": []}))
        source = checkpoint(files / "start.ckpt", MINE)
        caplog.set_level("INFO")
        net = self.built(files, "other.yaml")
        assert torch.equal(net.head[3].weight[:2], source.head[3].weight[[1, 7]])
        assert 0 < net.head[3].weight[2:].abs().max() < 0.01
        assert "2 filters of the last convolution are taken over, 2 start anew" in caplog.text

    def test_nothing_says_which_points_are_the_same(self, files, caplog):
        checkpoint(files / "start.ckpt", get_scheme("ibug68"))
        caplog.set_level("INFO")
        net = self.built(files, "mine.yaml")
        assert net.head[3].weight.abs().max() < 0.01
        assert "the last convolution starts anew" in caplog.text

    def test_what_is_refused(self, files):
        checkpoint(files / "start.ckpt", get_scheme("ibug68"))
        file = open_weights(files / "start.ckpt")
        with pytest.raises(ValueError, match="it is about mine20, and this run's points are mine4"):
            same_points(file, get_scheme(FOUR), str(files / "same.yaml"))
        torch.save(tiny(1).state_dict(), files / "bare.pth")
        with pytest.raises(ValueError, match="do not say what their points are"):
            same_points(open_weights(files / "bare.pth"), MINE, str(files / "same.yaml"))


class TestFrozenBackbone:
    @pytest.fixture
    def common(self, drawn_root):
        data = ["data=w300", f"data.root={drawn_root}", "data.batch_size=12", "codec=subpixel", "optim=adamw_cosine"]
        return [*TINY, *data, "trainer.log_every_n_steps=1", "optim.optimizer.weight_decay=0.1"]

    def test_its_weights_stay_as_they_were_for_so_many_epochs(self, common, tmp_path):
        """To the bit: weight decay leaves them alone as well."""
        source = checkpoint(tmp_path / "start.ckpt", get_scheme("ibug68"))
        start = [f"model.weights={tmp_path / 'start.ckpt'}", "freeze_backbone_epochs=1"]
        for epochs, is_frozen in ((1, True), (2, False)):
            run = tmp_path / str(epochs)
            fit([*common, *start, f"trainer.max_epochs={epochs}", f"run_dir={run}"])
            state = last(run)["state_dict"]
            for name, value in source.named_parameters():
                same = torch.equal(state[f"net.{name}"], value)
                assert same == (is_frozen and not name.startswith("head.")), name

    @pytest.mark.slow
    def test_a_killed_run_goes_on_bit_for_bit(self, common, tmp_path):
        typed = [*common, "trainer.max_epochs=3", "freeze_backbone_epochs=2", "checkpoint.every_n_steps=1"]
        fit([*typed, f"run_dir={tmp_path / 'whole'}"])
        run = [*typed, f"hydra.run.dir={tmp_path / 'killed'}"]
        assert job("SIGKILL 3", *run).returncode != 0  # in the second epoch, still frozen
        done = job("", *run)
        assert done.returncode == 0, done.stderr[-3000:]
        one, other = last(tmp_path / "whole"), last(tmp_path / "killed")
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
            assert_same(one[key], other[key], key)

    def test_a_network_without_a_head_is_refused(self):
        lit = SimpleNamespace(net=torch.nn.Conv2d(3, 3, 1))
        with pytest.raises(ValueError, match="the network's part `head`, and Conv2d has none"):
            FrozenBackbone(1).on_fit_start(None, lit)
        with pytest.raises(ValueError, match="a whole number of epochs"):
            FrozenBackbone(-1)
