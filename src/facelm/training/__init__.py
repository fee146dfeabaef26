"""The training step and recipe: LightningModule, losses, schedules, callbacks."""
