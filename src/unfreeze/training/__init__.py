"""Plan, staged unfreezing, the LightningModule and its callbacks."""
