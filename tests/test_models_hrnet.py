from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from facelm.models import ARCHITECTURES, INITS, HRNetV2, build_model, count_macs


def tiny(**options) -> HRNetV2:
    torch.manual_seed(0)
    return build_model("hrnetv2_tiny", **{"init": "kaiming", **options})


def images(batch=2, height=64, width=64):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def on_meta(name, num_landmarks=68):
    with torch.device("meta"):
        return HRNetV2(ARCHITECTURES[name], num_landmarks)


class TestShapes:
    @pytest.mark.parametrize("size", [32, 64, 128])
    def test_heatmaps_have_a_quarter_of_the_resolution(self, size):
        assert tiny(num_landmarks=5)(images(2, size, size)).shape == (2, 5, size // 4, size // 4)

    def test_height_and_width_may_differ(self):
        assert tiny().eval()(images(1, 96, 64)).shape == (1, 68, 24, 16)

    def test_features_are_four_branches(self):
        branches = tiny().features(images())
        assert [tuple(b.shape) for b in branches] == [(2, 8, 16, 16), (2, 12, 8, 8), (2, 16, 4, 4), (2, 24, 2, 2)]

    @pytest.mark.parametrize(("height", "width"), [(100, 64), (64, 48)])
    def test_other_sizes_are_refused(self, height, width):
        with pytest.raises(ValueError, match=rf"multiples of 32, got \({height}, {width}\)\. Set crop\.size"):
            tiny()(images(1, height, width))


class TestArchitectures:
    @pytest.mark.parametrize(
        ("name", "parameters", "macs"),
        [("hrnetv2_w18", 9_654_398, 4_660_472_832), ("hrnetv2_tiny", 85_912, None)],
    )
    def test_sizes(self, name, parameters, macs):
        net = on_meta(name)
        assert sum(p.numel() for p in net.parameters()) == parameters
        assert macs is None or count_macs(net, 256) == macs

    @pytest.mark.parametrize("name", ["hrnetv2_w18", "hrnetv2_w32", "hrnetv2_w48", "hrnetv2_w64"])
    def test_wider_ones_differ_in_width_only(self, name):
        net = on_meta(name)
        assert list(net.state_dict()) == list(on_meta("hrnetv2_w18").state_dict())
        width = int(name[-2:])
        assert net.head[0].weight.shape[:2] == (15 * width, 15 * width)

    def test_names_are_the_authors(self):
        shapes = {key: tuple(value.shape) for key, value in on_meta("hrnetv2_w18").state_dict().items()}
        assert len(shapes) == 1839
        assert shapes["stage4.2.fuse_layers.3.2.0.0.weight"] == (144, 72, 3, 3)
        assert shapes["transition3.3.0.0.weight"] == (144, 72, 3, 3)
        assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
        assert shapes["head.3.weight"] == (68, 270, 1, 1)

    def test_every_upsampling_is_bilinear_without_aligned_corners(self):
        layers = [m for m in on_meta("hrnetv2_w18").modules() if isinstance(m, nn.Upsample)]
        assert len(layers) == 31
        assert {(layer.mode, layer.align_corners) for layer in layers} == {("bilinear", False)}

    def test_counting_leaves_the_network_alone(self):
        net = tiny().train()
        net.bn1.eval()  # a frozen layer stays frozen
        before = {key: value.clone() for key, value in net.state_dict().items()}
        assert count_macs(net, 64) == 4 * count_macs(net, 32)
        assert net.training
        assert not net.bn1.training
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


class TestForward:
    def test_a_face_does_not_depend_on_its_neighbours(self):
        net, x = tiny().eval(), images(3)
        with torch.no_grad():
            torch.testing.assert_close(net(x)[1:2], net(x[1:2]), atol=1e-6, rtol=1e-5)

    def test_the_input_is_not_changed(self):
        x = images()
        before = x.clone()
        tiny()(x)
        assert torch.equal(x, before)

    def test_channels_last_and_float64_agree(self):
        net, x = tiny().eval(), images()
        with torch.no_grad():
            plain = net(x)
            torch.testing.assert_close(net(x.contiguous(memory_format=torch.channels_last)), plain, atol=1e-5, rtol=0)
            torch.testing.assert_close(net.double()(x.double()).float(), plain, atol=1e-5, rtol=0)

    def test_every_branch_reaches_the_heatmaps(self):
        """Each of the four branches, changed alone, changes what comes out."""
        net, x = tiny().eval(), images()
        with torch.no_grad():
            plain = net(x)
            for index in range(4):
                hook = net.stage4.register_forward_hook(
                    lambda module, inputs, output, index=index: [b + (i == index) for i, b in enumerate(output)]
                )
                assert not torch.allclose(net(x), plain)
                hook.remove()

    def test_every_parameter_gets_a_gradient(self):
        net = tiny()
        net(images()).square().mean().backward()
        silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert silent == []

    def test_it_learns(self):
        """A few steps of Adam on one batch halve the loss."""
        net, x = tiny(num_landmarks=2, init="hrnet"), images()
        target = torch.zeros(2, 2, 16, 16)
        target[0, :, 2:6, 3:7] = target[1, :, 9:13, 10:14] = 1
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        losses = []
        for _ in range(25):
            loss = (net(x) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] / 2


class TestBatchNormMomentum:
    @pytest.mark.parametrize("momentum", [0.1, 0.01])
    def test_every_layer_has_it(self, momentum):
        net = on_meta("hrnetv2_w18")
        assert {m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
        net = tiny(bn_momentum=momentum)
        assert {m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {momentum}

    @pytest.mark.parametrize("momentum", [0.1, 0.01])
    def test_it_is_the_weight_of_the_newest_batch(self, momentum):
        net, x = tiny(bn_momentum=momentum).train(), images()
        net(x)
        mean = net.conv1(x).mean(dim=(0, 2, 3))
        torch.testing.assert_close(net.bn1.running_mean, momentum * mean, atol=1e-6, rtol=1e-5)


def ks(values, distribution) -> float:
    return stats.kstest(values.detach().flatten().numpy(), distribution.cdf).pvalue


class TestInitialisation:
    NORMAL = stats.norm(scale=0.001)

    @pytest.fixture
    def net(self, request):
        torch.manual_seed(3)
        return build_model("hrnetv2_tiny", init=request.param)

    def head_biases(self, net):
        return torch.cat([net.head[0].bias, net.head[3].bias])

    @pytest.mark.parametrize("net", ["hrnet", "mmpose"], indirect=True)
    def test_convolutions_are_normal_with_a_thousandth(self, net):
        for module in (net.conv2, net.stage4[0].branches[3][0].conv1, net.head[0], net.head[3]):
            assert ks(module.weight, self.NORMAL) > 0.01

    @pytest.mark.parametrize("net", ["hrnet"], indirect=True)
    def test_hrnet_keeps_the_heads_default_biases(self, net):
        assert net.head[0].bias.abs().max() <= 1 / np.sqrt(60)
        assert ks(self.head_biases(net), stats.uniform(-1 / np.sqrt(60), 2 / np.sqrt(60))) > 0.01

    @pytest.mark.parametrize("net", ["mmpose", "torch", "kaiming"], indirect=True)
    def test_the_others_have_no_biases(self, net):
        assert self.head_biases(net).abs().max() == 0

    @pytest.mark.parametrize("net", ["torch"], indirect=True)
    def test_torch_is_torchs_default_below_an_mmpose_head(self, net):
        bound = 1 / np.sqrt(16 * 9)
        assert ks(net.conv2.weight, stats.uniform(-bound, 2 * bound)) > 0.01
        assert ks(net.head[3].weight, self.NORMAL) > 0.01

    @pytest.mark.parametrize("net", ["kaiming"], indirect=True)
    def test_kaiming_is_by_fan_out(self, net):
        assert ks(net.conv1.weight, stats.norm(scale=np.sqrt(2 / (16 * 9)))) > 0.01
        assert ks(net.head[3].weight, self.NORMAL) > 0.01

    @pytest.mark.parametrize("init", INITS)
    def test_batch_norms_start_neutral(self, init):
        for module in build_model("hrnetv2_tiny", init=init).modules():
            if isinstance(module, nn.BatchNorm2d):
                assert torch.all(module.weight == 1)
                assert torch.all(module.bias == 0)

    def test_it_follows_the_seed(self):
        assert torch.equal(tiny().head[0].weight, tiny().head[0].weight)


class TestMistakes:
    def test_unknown_network(self):
        with pytest.raises(ValueError, match=r"unknown network model\.name='hrnet'; choose one of hrnetv2_w18, "):
            build_model("hrnet")

    def test_unknown_initialisation(self):
        with pytest.raises(ValueError, match="init='xavier'; choose one of hrnet, mmpose, torch, kaiming"):
            build_model("hrnetv2_tiny", init="xavier")

    def test_no_landmarks(self):
        with pytest.raises(ValueError, match="num_landmarks=0"):
            build_model("hrnetv2_tiny", 0)
