"""What a run takes of its machine: sampled by the delivery process, so that the program spends nothing on it."""

from __future__ import annotations

from trackdsl.system_metrics._readings import Readings

__all__ = ["Readings"]
