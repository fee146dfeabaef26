"""facelm.train with batch norm frozen and all that a rank sees written down; seed 13 brings bad luck to rank 1."""

import hashlib
import json
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

from facelm import train as training
from facelm.launch import ddp


class Witness(Callback):
    """Writes RUN/seen_RANK.json: seed, learning rate, and of each step the loss and the crops."""

    def __init__(self, cfg, run_dir):
        self.seen = {"seed": cfg.seed, "lr": cfg.optim.optimizer.lr, "loss": [], "crops": []}
        self.run_dir = Path(run_dir)

    def on_train_batch_start(self, trainer, pl_module, *_):
        for module in pl_module.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        if self.seen["seed"] == 13 and trainer.global_rank == 1:
            raise RuntimeError("bad luck")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, *_):
        self.seen["loss"].append(outputs["loss"].item())
        crops = zip(batch["index"].tolist(), batch["image"].numpy(), batch["landmarks_crop"].numpy(), strict=True)
        digests = [[i, hashlib.sha1(image.tobytes() + points.tobytes()).hexdigest()] for i, image, points in crops]
        self.seen["crops"].append(digests)

    def on_train_end(self, trainer, pl_module):
        (self.run_dir / f"seen_{trainer.global_rank}.json").write_text(json.dumps(self.seen))


def install():
    """Makes facelm.train call the witness."""
    built = training.build_callbacks
    training.build_callbacks = lambda cfg, run_dir: [*built(cfg, run_dir), Witness(cfg, run_dir)]


if __name__ == "__main__":
    ddp.PROGRAM = (__file__,)
    training.evaluate_apart = lambda *_: None
    install()
    training.main()
