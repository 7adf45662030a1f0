"""The use of the machine by a run. The delivery process samples it, so that the program spends no time on it."""

from __future__ import annotations

from trackdsl.system_metrics._readings import Readings

__all__ = ["Readings"]
