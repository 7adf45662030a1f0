"""Frames and arrays as text, read back from a SQLite store."""

from __future__ import annotations

import json
from typing import Any

import trackdsl
from tests.conftest import client, deliver, last_run
from tests.unit.test_text_formats import FRAMES, ROWS, equal
from trackdsl import load_artifact, stage, track_returns


def test_types_come_from_the_store(store: str) -> None:
    """What is delivered is read with its types; a later file by the same name has its own, or none."""
    trackdsl.configure(tracking_uri=store)

    def keep(frame: Any) -> None:
        track_returns("x", artifacts={"x": "tables/x.CSV"})(lambda: frame)()

    with stage("first"):
        keep(FRAMES["leading zeros"])
    deliver()
    first = last_run(store)
    equal(load_artifact(first, "tables/x.CSV", tracking_uri=store), FRAMES["leading zeros"])
    paths = {entry.path for entry in client(store).list_artifacts(first.info.run_id, "tables")}
    assert paths == {"tables/x.CSV", "tables/x.CSV.dtypes.json"}
    assert json.loads(first.data.tags["trackdsl.files"])["tables/x.CSV"] == {
        "handler": "pandas.DataFrame",
        "types": True,
    }
    with stage("second") as run:
        keep(FRAMES["leading zeros"])
        keep(ROWS)
        equal(load_artifact(run, "tables/x.CSV"), ROWS)
    deliver()
    equal(load_artifact(last_run(store), "tables/x.CSV", tracking_uri=store), ROWS)
