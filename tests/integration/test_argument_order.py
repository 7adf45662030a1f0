"""Arguments in either order, delivered to a SQLite store."""

from __future__ import annotations

import trackdsl
from tests.conftest import client, deliver, last_run
from tests.unit.test_argument_order import drawn
from trackdsl import stage


def test_swapped_arguments_arrive(sqlite_store: str) -> None:
    """Files that are logged with exchanged arguments are in MLflow's store under their paths."""
    trackdsl.configure(tracking_uri=sqlite_store)
    with stage("f") as run:
        run.log_figure("plots/roc.png", drawn())
        run.log_dict("c.json", {"a": 1})
        run.log_text("n.txt", "two words")
    deliver()
    found = client(sqlite_store).list_artifacts(last_run(sqlite_store).info.run_id)
    assert sorted(entry.path for entry in found) == ["c.json", "n.txt", "plots"]
