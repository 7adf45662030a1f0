"""A network for tests of trainings with PyTorch Lightning."""

from __future__ import annotations

import logging
from typing import Any

import pytest


def network_and_data() -> tuple[Any, Any]:
    """What `Trainer.fit` takes: a network of one layer, which logs `train_loss`, and a loader of four rows."""
    lightning = pytest.importorskip("lightning")
    torch = pytest.importorskip("torch")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Net(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch: Any) -> Any:
            loss = self.layer(batch[0]).square().mean()
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Net(), torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4, 2)))
