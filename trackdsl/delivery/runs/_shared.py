"""What the journals of one store share."""

from __future__ import annotations

from dataclasses import dataclass

from trackdsl.delivery.batches._model_points import ModelPoints
from trackdsl.delivery.batches._own_tags import OwnTags
from trackdsl.delivery.batches._shared_points import SharedPoints
from trackdsl.delivery.files._tables import Tables
from trackdsl.delivery.runs._remote_runs import RemoteRuns
from trackdsl.delivery.runs._sampling import Sampler
from trackdsl.delivery.summaries._what_changed import WhatChanged


@dataclass(frozen=True)
class Shared:
    """What the journals of one store share.

    Attributes:
        remote_runs: finds runs that another journal opened.
        points: the metric points of runs that several journals write to.
        tables: the tables.
        models: the points of logged models.
        sampler: of system metrics, while runs are open.
        own_tags: adds to tags that runs have.
        what_changed: the root runs whose changes are still to be written.
    """

    remote_runs: RemoteRuns
    points: SharedPoints
    tables: Tables
    models: ModelPoints
    sampler: Sampler
    own_tags: OwnTags
    what_changed: WhatChanged
