"""The network against mmpose's and the HRNet authors': names, weights, heatmaps, training steps, initialisation."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from facelm.models import build_model, count_macs, load_weights
from facelm.models.weights import to_hrnet_names
from parity.conftest import TABLE
from parity.recipe import fixed_input, recipe_net, recipe_state

HEATMAP_TOLERANCE = 2e-5


def skip(reason):
    TABLE.skipped.append(reason)
    pytest.skip(reason)


def entry(golden, content, *keys):
    for key in keys:
        if key not in content:
            skip(f"{golden.label}/model_keys.json: {' > '.join(keys)}")
        content = content[key]
    return content


@functools.cache
def activations(seed):
    """What the recipe network makes of the fixed input, by the reference's names; one run per seed."""
    net, found = recipe_net(), {}

    def keep(name):
        def hook(module, inputs, output):
            branches = output if isinstance(output, list) else [output]
            found.update({f"{name}_{i}": branch.numpy() for i, branch in enumerate(branches)})

        return hook

    for name in ("layer1", "stage2", "stage3", "stage4"):
        getattr(net, name).register_forward_hook(keep(name))
    net.head.register_forward_pre_hook(lambda module, inputs: found.update(neck=inputs[0].numpy()))
    with torch.no_grad():
        found["heatmaps"] = net(fixed_input(seed)).numpy()
    return found


class TestNames:
    def test_names_shapes_and_order_are_the_authors(self, golden, agree):
        keys = golden.json("model_keys.json")
        expected = entry(golden, keys, "hrnet_original", "keys")
        net = build_model("hrnetv2_w18")
        actual = [[key, list(value.shape)] for key, value in net.state_dict().items()]
        assert actual == expected
        agree("state_dict: names, shapes and order", len(actual), keys["hrnet_original"]["n_keys"])
        agree("parameters", sum(p.numel() for p in net.parameters()), keys["hrnet_original"]["params"])
        agree("multiply-adds at 256", count_macs(net, 256), keys["hrnet_original"]["macs_256"])

    def test_layers_are_the_authors(self, golden, agree):
        facts = entry(golden, golden.json("model_keys.json"), "facts", "mmpose")
        found = {}
        for module in build_model("hrnetv2_w18", bn_momentum=0.1).modules():
            if isinstance(module, nn.Conv2d):
                (k, _), (s, _), (p, _) = module.kernel_size, module.stride, module.padding
                name = f"Conv2d(bias={module.bias is not None}, k={k}, s={s}, p={p})"
            elif isinstance(module, nn.BatchNorm2d):
                name = f"BatchNorm2d(eps={module.eps}, momentum={module.momentum})"
            elif isinstance(module, nn.Upsample):
                how = f"mode={module.mode}, align_corners={module.align_corners}, scale={module.scale_factor}"
                name = f"Upsample({how})"
            else:
                continue
            found[name] = found.get(name, 0) + 1
        names = sorted(facts)
        agree("layers by kind", [found.get(name, 0) for name in names], [facts[name] for name in names])


class TestRecipe:
    def test_weights(self, golden, agree):
        tensors = golden.json("model_recipe_check.json")["tensors"]
        state = recipe_state()
        assert all(list(state[key].shape) == row[0] for key, row in tensors.items())
        flat = [state[key].double().ravel() for key in tensors]
        ends = [(values[0], values[-1]) for values in flat]
        sums = [(values.sum(), (values**2).sum()) for values in flat]
        agree("weights recipe: first and last values", ends, [row[3:5] for row in tensors.values()])
        # The last digit of a sum depends on its order, which torch chooses for the machine at hand.
        agree("weights recipe: sums and sums of squares", sums, [row[1:3] for row in tensors.values()], atol=1e-11)


class TestForward:
    def test_heatmaps(self, golden, agree):
        arrays = golden.npz("model_forward.npz")
        heatmaps = activations(int(arrays["input_seed"]))["heatmaps"]
        if "heatmaps_slice" in arrays:  # the kept copy holds every eighth row and column
            agree("heatmaps, float32", heatmaps[:, :, ::8, ::8], arrays["heatmaps_slice"], atol=HEATMAP_TOLERANCE)
        else:
            agree("heatmaps, float32", heatmaps, arrays["heatmaps"], atol=HEATMAP_TOLERANCE)

    def test_stages(self, golden, agree):
        arrays = golden.npz("model_forward.npz")
        found = activations(int(arrays["input_seed"]))
        names = [key.removesuffix("_stats") for key in arrays if key.endswith("_stats")]
        if not names:
            skip(f"{golden.label}/model_forward.npz: stages")
        for name in names:
            value = found[name]
            step = value.shape[-1] // 8
            piece = value[:, :4, ::step, ::step]
            agree("branches of every stage", piece, arrays[f"{name}_slice"], atol=HEATMAP_TOLERANCE)
            stats = [value.mean(dtype=np.float64), value.std(dtype=np.float64, ddof=1), np.abs(value).max()]
            agree("branches: mean, std, largest", stats, arrays[f"{name}_stats"], atol=HEATMAP_TOLERANCE)

    def test_head_input(self, golden, agree):
        arrays = golden.npz("model_forward.npz")
        neck = activations(int(arrays["input_seed"]))["neck"][:, ::27, ::8, ::8]
        agree("concatenated branches", neck, arrays["neck_slice"], atol=HEATMAP_TOLERANCE)

    @pytest.mark.parametrize(
        ("variant", "options"),
        [
            ("fuse nearest, concat bilinear (timm backbone)", None),
            ("all nearest", {"mode": "nearest", "align_corners": None}),
            ("all align_corners=True", {"mode": "bilinear", "align_corners": True}),
        ],
    )
    def test_wrong_upsampling_is_as_wrong_as_theirs(self, golden, agree, monkeypatch, variant, options):
        """The reference says how far three mistakes are off; made here they are as far off, and far above the bound."""
        arrays = golden.npz("model_forward.npz")
        seed = int(arrays["input_seed"])
        expected = arrays[f"wrong_rms: {variant}"]
        net, right = recipe_net(), activations(seed)["heatmaps"]
        if options is None:
            for module in net.modules():
                if isinstance(module, nn.Upsample):
                    module.mode, module.align_corners = "nearest", None
        else:
            right_way = F.interpolate

            def wrong_way(x, size=None, scale_factor=None, *_, **__):
                return right_way(x, size, scale_factor, **options)

            monkeypatch.setattr(F, "interpolate", wrong_way)
        with torch.no_grad():
            wrong = net(fixed_input(seed)).numpy()
        rms = np.sqrt(np.mean((wrong - right).astype(np.float64) ** 2))
        assert rms > 100 * HEATMAP_TOLERANCE
        agree("wrong upsampling, rms error", rms, expected, rtol=1e-4)

    def test_one_nearest_layer_is_seen(self, golden):
        arrays = golden.npz("model_forward.npz")
        net = recipe_net()
        net.stage3[1].fuse_layers[0][1][2].mode = "nearest"
        net.stage3[1].fuse_layers[0][1][2].align_corners = None
        seed = int(arrays["input_seed"])
        with torch.no_grad():
            wrong = net(fixed_input(seed)).numpy()
        assert np.abs(wrong - activations(seed)["heatmaps"]).max() > 100 * HEATMAP_TOLERANCE


def weighted_mse(output, target, weight):
    return (weight[:, :, None, None] * (output - target) ** 2).mean()


@functools.cache
def train_in_float64(seed, target_bytes, weight_bytes):
    """Three Adam steps with momentum 0.1, and the same forward passes with momentum 0.01 on shared parameters."""
    target = torch.from_numpy(np.frombuffer(target_bytes, np.float32).reshape(2, 68, 64, 64).astype(np.float64))
    weight = torch.from_numpy(np.frombuffer(weight_bytes, np.float32).reshape(2, 68).astype(np.float64))
    nets = {momentum: recipe_net(momentum).double().train() for momentum in (0.1, 0.01)}
    for module, slower in zip(nets[0.1].modules(), nets[0.01].modules(), strict=True):
        slower._parameters = module._parameters
    optimizer = torch.optim.Adam(nets[0.1].parameters(), lr=2e-3)
    images = fixed_input(seed).double()
    losses, gradients = {0.1: [], 0.01: []}, {}
    for step in range(3):
        with torch.no_grad():
            losses[0.01].append(weighted_mse(nets[0.01](images), target, weight).item())
        loss = weighted_mse(nets[0.1](images), target, weight)
        optimizer.zero_grad()
        loss.backward()
        losses[0.1].append(loss.item())
        if step == 0:
            gradients = {name: p.grad.numpy().copy() for name, p in nets[0.1].named_parameters()}
        optimizer.step()
    states = {momentum: {k: v.numpy() for k, v in net.state_dict().items()} for momentum, net in nets.items()}
    return losses, gradients, states


class TestTrainingSteps:
    def steps(self, golden):
        arrays = golden.npz("train_step64.npz")
        target, weight = arrays["target"].astype(np.float32), arrays["weight"].astype(np.float32)
        return arrays, *train_in_float64(int(arrays["input_seed"]), target.tobytes(), weight.tobytes())

    def test_losses(self, golden, agree):
        arrays, losses, _, _ = self.steps(golden)
        agree("three Adam steps, float64: losses", losses[0.1], arrays["losses"], rtol=1e-6)
        agree("three Adam steps, float64: losses", losses[0.01], arrays["losses_mom0.01"], rtol=1e-6)

    def test_gradients(self, golden, agree):
        arrays, _, gradients, _ = self.steps(golden)
        names = [str(name) for name in arrays["grad0_names"]]
        # A batch norm follows head.0: the gradient of its bias is zero but for rounding.
        kept = [i for i, name in enumerate(names) if name != "head.0.bias"]
        assert sorted(names) == sorted(gradients)
        norms = np.array([np.linalg.norm(gradients[name]) for name in names])
        expected = arrays["grad0_norms"]
        agree("gradient norms, float64", norms[kept], expected[kept], rtol=1e-6, scale="value")
        for key in (key for key in arrays if key.startswith("grad0:")):
            name = key.removeprefix("grad0:")
            if name == "head.0.bias":
                agree("gradient of head.0.bias (zero)", gradients[name], arrays[key], atol=1e-12)
            else:
                agree("gradients, float64", gradients[name], arrays[key], rtol=1e-6)

    @pytest.mark.parametrize(("momentum", "prefix"), [(0.1, "after3:"), (0.01, "after3_mom0.01:")])
    def test_weights_and_running_statistics(self, golden, agree, momentum, prefix):
        arrays, _, _, states = self.steps(golden)
        keys = [key for key in arrays if key.startswith(prefix)]
        if not keys:
            skip(f"{golden.label}/train_step64.npz: {prefix}*")
        for key in keys:
            kind = "running statistics" if "running" in key else "weights"
            actual = states[momentum][key.removeprefix(prefix)]
            agree(f"three Adam steps, momentum {momentum}: {kind}", actual, arrays[key], rtol=1e-6)

    def test_first_loss_in_float32(self, golden, agree):
        arrays, double = golden.npz("train_step.npz"), golden.npz("train_step64.npz")
        target, weight = torch.from_numpy(double["target"]), torch.from_numpy(double["weight"])
        blank = weighted_mse(torch.zeros_like(target), target, weight).item()
        if not np.isclose(blank, arrays["loss_of_zero_output"], rtol=1e-6):
            skip(f"{golden.label}/train_step.npz: its target (train_step64.npz holds another)")
        with torch.no_grad():
            loss = weighted_mse(recipe_net().train()(fixed_input(int(arrays["input_seed"]))), target, weight).item()
        agree("first loss, float32", loss, arrays["losses_acc"][0, 0], rtol=1e-5)


class TestInitialisation:
    @pytest.mark.parametrize(
        ("init", "reference"),
        [
            ("mmpose", "mmpose_default_init_cfg (Normal std .001 for Conv2d, 1 for norm)"),
            ("torch", "mmpose_init_cfg_None"),
            ("hrnet", "hrnet_original"),
        ],
    )
    def test_distribution(self, golden, agree, init, reference):
        """Mean and standard deviation of two draws, theirs and ours, differ by chance only."""
        measured = entry(golden, golden.json("model_keys.json"), "init", reference)
        torch.manual_seed(0)
        state = build_model("hrnetv2_w18", init=init).state_dict()
        for key, theirs in measured.items():
            naming = "hrnet" if reference == "hrnet_original" else "mmpose-1.x"
            value = state[to_hrnet_names([key], naming)[key]].double()
            n, std = value.numel(), theirs["std"]
            if std == 0:
                expected = [theirs["mean"], theirs["max"]]
                agree(f"initialisation '{init}': constants", [value.mean(), value.max()], expected)
            else:
                z_mean = (value.mean().item() - theirs["mean"]) / (std * np.sqrt(2 / n))
                z_std = (value.std().item() / std - 1) / np.sqrt(1 / n)
                agree(f"initialisation '{init}': standard errors", [z_mean, z_std], [0, 0], atol=4)


class TestNamings:
    """A file of recipe weights under each naming, its names taken from the reference, gives identical heatmaps."""

    def names(self, golden, naming):
        keys = golden.json("model_keys.json")
        hrnet = [key for key, _ in entry(golden, keys, "hrnet_original", "keys")]
        if naming == "hrnet":
            return dict(zip(hrnet, hrnet, strict=True))
        if naming == "timm":
            only_timm = entry(golden, keys, "mapping_timm_to_hrnet", "in_timm_only")
            return {key: key for key in hrnet if not key.startswith("head.")} | dict.fromkeys(only_timm)
        mmpose = [key for key, _ in entry(golden, keys, "mmpose", "keys")]
        if naming == "mmpose-0.x":
            head = golden.json("old_checkpoint_keys.json")["head_keys"]
            mmpose = [key for key in mmpose if key.startswith("backbone.")] + head
        return dict(zip(mmpose, hrnet, strict=True))

    @pytest.mark.parametrize("naming", ["hrnet", "mmpose-1.x", "mmpose-0.x", "timm"])
    def test_identical_heatmaps(self, golden, agree, tmp_path, naming):
        names = self.names(golden, naming)
        state = recipe_state()
        file = {theirs: state[ours] if ours else torch.ones(1) for theirs, ours in names.items()}
        torch.save({"state_dict": file} if naming.startswith("mmpose") else file, tmp_path / "weights.pth")
        net = build_model("hrnetv2_w18")
        net.head.load_state_dict(recipe_net().head.state_dict())  # timm's files have no head
        report = load_weights(net, tmp_path / "weights.pth")
        extra = sum(ours is None for ours in names.values())
        assert report.naming == naming
        assert (len(report.matched), len(report.left_over)) == (len(names) - extra, extra)
        images = fixed_input(0)[:1, :, :128, :128]
        with torch.no_grad():
            actual, expected = net.eval()(images), recipe_net()(images)
        agree(f"heatmaps of weights under {naming} names", actual, expected)
