"""`ema.decay`: the averages are those of the documented rule."""

from __future__ import annotations

from types import SimpleNamespace

import lightning as L
import pytest
import torch

from facelm.training.callbacks import WarmedEMA


class One(L.LightningModule):
    """A module of one weight, and a counter as batch norms have one."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=dtype))
        self.register_buffer("counter", torch.tensor(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_update_copies_and_the_next_ones_average(dtype):
    module, callback, trainer = One(dtype), WarmedEMA(0.3), SimpleNamespace(global_step=0)
    callback.setup(trainer, module, "fit")
    mean = 1.0
    for n, value in enumerate((1.0, 5.0, -2.0, 8.0, 3.0)):
        with torch.no_grad():
            module.weight.fill_(value)
            module.counter.fill_(n + 1)
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, module, None, None, n)
        decay = min(0.3, (1 + n) / (10 + n)) if n else 0.0
        mean = decay * mean + (1 - decay) * value
        callback.on_validation_epoch_start(trainer, module)
        assert module.weight.item() == pytest.approx(mean, rel=1e-6)
        assert module.weight.dtype == dtype
        assert module.counter == n + 1
        callback.on_validation_epoch_end(trainer, module)
        assert module.weight.item() == value
