"""A backbone that keeps its weights for the first epochs, while a new head learns to read it."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer


class FrozenBackbone(Callback):
    """No step of the first `epochs` epochs changes a parameter outside of the network's `head`.

    Its gradients are made and dropped: a parameter without one is left alone by every optimizer, weight decay included.
    `requires_grad=False` would have distributed training leave these parameters out for good, since it asks once, at
    the start. Batch norms go on measuring: their running statistics become those of the new faces. What is frozen
    follows from the epoch alone, so a resumed run goes on bit for bit.

    Raises:
        ValueError: `epochs` is no whole number of 0 or more; when the training starts: a network without a part called
            `head`.
    """

    def __init__(self, epochs: int) -> None:
        if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 0:
            raise ValueError(f"freeze_backbone_epochs={epochs}: a whole number of epochs, 0 or more")
        self.epochs = epochs

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuses a network whose head is not known."""
        if not any(name.startswith("head.") for name, _ in _network(pl_module).named_parameters()):
            raise ValueError(
                f"freeze_backbone_epochs={self.epochs} keeps all but the network's part `head`, and "
                f"{type(_network(pl_module)).__name__} has none: call the part that makes the heatmaps so"
            )

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Drops the gradients of all but the head; before they are clipped, so that the head's alone are measured."""
        if trainer.current_epoch < self.epochs:
            for name, parameter in _network(pl_module).named_parameters():
                if not name.startswith("head."):
                    parameter.grad = None


def _network(pl_module: Any) -> Any:
    return pl_module.net
