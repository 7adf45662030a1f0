"""The function that all subjects call: eight parameters, five returned metrics."""

from __future__ import annotations

PARAMETERS = {
    "path": "data/train.csv",
    "lr": 0.05,
    "epochs": 20,
    "depth": 6,
    "seed": 42,
    "shuffle": True,
    "loss": "huber",
    "dropout": 0.1,
}


def train(
    path: str,
    lr: float,
    epochs: int,
    depth: int = 6,
    *,
    seed: int = 42,
    shuffle: bool = True,
    loss: str = "huber",
    dropout: float = 0.1,
) -> dict[str, float]:
    """The function does nothing, so all measured time is spent on tracking."""
    return {"accuracy": 0.91, "f1": 0.88, "loss": 0.31, "recall": 0.9, "seconds": 1.5}
