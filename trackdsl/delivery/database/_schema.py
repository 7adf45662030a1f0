"""The versions of MLflow's tables that the database sink writes to.

Sources: mlflow/store/db_migrations/versions and mlflow/store/tracking/dbmodels/models.py of each release.
"""

from __future__ import annotations

#: Alembic's revision of the tables, and the first and the last MLflow with it.
KNOWN_REVISIONS = {
    "6953534de441": "3.1.0",
    "bda7b8c39065": "3.1.1 to 3.1.4",
    "770bee3ae1dd": "3.2",
    "1a0cddfcaa16": "3.3",
    "71994744cf8e": "3.4",
    "bf29a5ff90ea": "3.5 to 3.7",
    "1bd49d398cd23": "3.8",
    "d3e4f5a6b7c8": "3.9",
    "1b5f0d9ad7c1": "3.10",
    "c3d6457b6d8a": "3.11",
    "7d34483879f0": "3.12",
    "da6fb0208061": "3.13",
    "b7e4c1a90f23": "3.14",
    "6f8d9c3b2a1e": "3.15",
    "b7e2c1a4d9f3": "3.16",
    "dc11669786a5": "3.17",
    "f4a9b2c7d1e6": "3.18",
}
#: In the tables before these, experiments had no workspace.
FIRST_WITH_WORKSPACES = "1b5f0d9ad7c1"
#: With these variables, MLflow writes other rows than the database sink does.
UNUSUAL_VARIABLES = ("MLFLOW_ENABLE_WORKSPACES", "_MLFLOW_SERVER_ARTIFACT_ROOT")
