import pytest
import torch
from torch import nn

from facelm.training.batch_norm import WarmedStatistics


def after(batches, *, momentum, warmed=True, start=0):
    """The norm after some batches of variance 1e-4, half of a step each by hand as the trainer would call."""
    norm = nn.BatchNorm2d(1, momentum=momentum)
    norm.num_batches_tracked.fill_(start)
    module, callback = nn.Sequential(norm), WarmedStatistics()
    generator = torch.Generator().manual_seed(0)
    for _ in range(batches):
        if warmed:
            callback.on_train_batch_start(None, module)
        norm(0.5 + 0.01 * torch.randn(64, 1, 8, 8, generator=generator))
        if warmed:
            callback.on_train_batch_end(None, module)
    return norm


class TestWarmedStatistics:
    def test_torch_alone_remembers_its_start(self):
        assert after(50, momentum=0.01, warmed=False).running_var.item() > 0.5

    @pytest.mark.parametrize("batches", [1, 5, 100, 150])
    def test_statistics_are_those_of_the_batches(self, batches):
        norm = after(batches, momentum=0.01)
        assert norm.running_var.item() == pytest.approx(1e-4, rel=0.05)
        assert norm.running_mean.item() == pytest.approx(0.5, rel=0.01)

    def test_after_the_warm_up_momentum_rules_as_ever(self):
        norm = after(100, momentum=0.01)
        mean = norm.running_mean.clone()
        norm(torch.full((4, 1, 2, 2), 3.0))
        torch.testing.assert_close(norm.running_mean, 0.99 * mean + 0.01 * 3.0)

    def test_loaded_statistics_are_left_alone(self):
        warmed, plain = (after(20, momentum=0.1, start=1000, warmed=w) for w in (True, False))
        torch.testing.assert_close(warmed.running_var, plain.running_var, rtol=0, atol=0)

    def test_going_on_in_the_middle_is_the_same(self):
        whole = after(30, momentum=0.01)
        norm, generator = nn.BatchNorm2d(1, momentum=0.01), torch.Generator().manual_seed(0)
        module = nn.Sequential(norm)
        for callback in (WarmedStatistics(), WarmedStatistics()):  # a resumed run has a new one
            for _ in range(15):
                callback.on_train_batch_start(None, module)
                norm(0.5 + 0.01 * torch.randn(64, 1, 8, 8, generator=generator))
                callback.on_train_batch_end(None, module)
        torch.testing.assert_close(norm.running_var, whole.running_var, rtol=0, atol=0)

    def test_each_norm_has_its_own_momentum(self):
        """A network of the user's own may mix them."""
        torch.manual_seed(0)
        module = nn.Sequential(nn.BatchNorm2d(1, momentum=0.1), nn.BatchNorm2d(1, momentum=0.01))
        callback = WarmedStatistics()
        for _ in range(5):
            callback.on_train_batch_start(None, module)
            for norm in module:
                norm(0.5 + 0.01 * torch.randn(64, 1, 8, 8))
            callback.on_train_batch_end(None, module)
        for norm in module:
            assert norm.running_var.item() == pytest.approx(1e-4, rel=0.05)
            assert norm.running_mean.item() == pytest.approx(0.5, rel=0.01)
