"""What is told of data: its digest, its schema, its size."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetProfile:
    """A dataset as MLflow keeps it.

    Attributes:
        digest: hash of the content, 32 hexadecimal digits: it changes when any value, name, type or shape does.
        schema: JSON, in the form of MLflow's data package (`mlflow_colspec` or `mlflow_tensorspec`).
        profile: JSON of sizes, such as `num_rows`.
    """

    digest: str
    schema: str
    profile: str
