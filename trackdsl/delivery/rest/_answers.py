"""The answers of MLflow's REST API, as far as delivery needs them."""

from __future__ import annotations

import msgspec

from trackdsl.delivery.store._sink import StoredRun, TreeRun
from trackdsl.delivery.store._tree_search import digests_by_name


class Pair(msgspec.Struct):
    """A parameter or a tag."""

    key: str
    value: str = ""


class RestPoint(msgspec.Struct):
    """A point of a metric; of a run, the latest one."""

    key: str
    value: float
    timestamp: int
    step: int = 0


class Info(msgspec.Struct):
    """The attributes of a run."""

    run_id: str
    experiment_id: str
    status: str
    lifecycle_stage: str
    artifact_uri: str = ""
    end_time: int | None = None
    start_time: int | None = None
    run_name: str = ""


class Data(msgspec.Struct):
    """The parameters, tags and latest metrics of a run."""

    params: list[Pair] = []
    tags: list[Pair] = []
    metrics: list[RestPoint] = []


class ModelOutput(msgspec.Struct):
    """A model that a run has logged."""

    model_id: str
    step: int = 0


class Outputs(msgspec.Struct):
    """The models that a run has logged."""

    model_outputs: list[ModelOutput] = []


class Dataset(msgspec.Struct):
    """A dataset."""

    name: str = ""
    digest: str = ""


class DatasetInput(msgspec.Struct):
    """A dataset that a run has used."""

    dataset: Dataset = msgspec.field(default_factory=Dataset)


class Inputs(msgspec.Struct):
    """The datasets that a run has used."""

    dataset_inputs: list[DatasetInput] = []


class Run(msgspec.Struct):
    """A run."""

    info: Info
    data: Data = msgspec.field(default_factory=Data)
    outputs: Outputs = msgspec.field(default_factory=Outputs)
    inputs: Inputs = msgspec.field(default_factory=Inputs)

    def stored(self) -> StoredRun:
        """The run in delivery's own type."""
        return StoredRun(
            self.info.run_id,
            self.info.status,
            self.info.end_time or 0,
            {each.key: each.value for each in self.data.tags},
            {each.key: each.value for each in self.data.params},
            self.info.experiment_id,
            deleted=self.info.lifecycle_stage == "deleted",
        )

    def of_tree(self) -> TreeRun:
        """The run as part of a tree, with all that comparisons read of it."""
        used = [(each.dataset.name, each.dataset.digest) for each in self.inputs.dataset_inputs]
        return TreeRun(
            self.info.run_id,
            self.info.run_name,
            self.info.status,
            self.info.start_time or 0,
            self.info.end_time or 0,
            self.info.experiment_id,
            {each.key: each.value for each in self.data.tags},
            {each.key: each.value for each in self.data.params},
            {each.key: each.value for each in self.data.metrics},
            digests_by_name(used),
        )


class Experiment(msgspec.Struct):
    """An experiment."""

    experiment_id: str
    name: str
    lifecycle_stage: str
    artifact_location: str = ""


class RunAnswer(msgspec.Struct):
    """The answer of `runs/get`."""

    run: Run


class UpdateAnswer(msgspec.Struct):
    """The answer of `runs/update`."""

    run_info: Info


class ExperimentAnswer(msgspec.Struct):
    """The answer of `experiments/get` and `experiments/get-by-name`."""

    experiment: Experiment


class Page(msgspec.Struct):
    """One page of what was searched for, or an answer of which nothing is needed."""

    runs: list[Run] = []
    experiments: list[Experiment] = []
    metrics: list[RestPoint] = []
    next_page_token: str = ""
