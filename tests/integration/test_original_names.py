"""Names that MLflow does not take are stored as others; pages about runs show the original ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import client, deliver, run_command
from tests.unit.test_report import Page, Store, run
from trackdsl import experiment, log_metric, log_param, stage
from trackdsl.store_format.changes.compare import Change, Changes, MetricDelta
from trackdsl.store_format.changes.stored import PATH, Stored
from trackdsl.store_format.limits import cut_key, fit_key
from trackdsl.store_format.report.material import collect
from trackdsl.store_format.report.page import report_html
from trackdsl.store_format.report.renaming import with_original_names

LOSS, LAYER, LONG = "loss<script>", "layers[0]", "loss<" + "x" * 300


def stored(*names: str) -> dict[str, Any]:
    """Values with these names as a store has them, for parameters and metrics."""
    keys = {name: fit_key(name) for name in names}
    return {
        "params": dict.fromkeys(keys.values(), "1"),
        "metrics": dict.fromkeys(keys.values(), 0.5),
        "tags": {cut_key(f"trackdsl.renamed.{key}"): name for name, key in keys.items()},
    }


def test_a_report_has_the_original_names() -> None:
    """In the tree, curves, tables and what changed; only the section about what was renamed has what is stored."""
    plain = run("plain", 0, 1, metrics={"a_x0041_": 0.5})
    tree = run("root", 0, 2, run("child", 0, 1, **stored(LOSS, LONG)), plain, **stored(LAYER, LOSS))
    key = fit_key(LOSS)
    changes = Changes((Change("param", key, "1", "2"),), metrics=(MetricDelta("", key, 1.0, 2.0),))
    store = Store({tree.run_id: {PATH: Stored(changes=changes, summary="x").encode().encode()}}, [1.0, 2.0])
    material = with_original_names(collect(tree, store))
    assert {curve.key for curve in material.curves} == {LOSS, LAYER, LONG, "a_x0041_"}
    page = Page(report_html(material))
    shown, _, renamed = page.text.rpartition("Left out")
    assert (LOSS in shown, LAYER in shown, "_x003C_" in shown) == (True, True, False)
    assert f"{key} (renamed)" in renamed
    assert "a_x0041_" in shown  # It only looks like a name that was rewritten.
    assert not any("alert" in script for script in page.scripts)


def test_a_comparison_shows_the_original_names(
    sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a terminal, a notebook and a page, with curves; its data has the names that the store has."""
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", sqlite_store)

    @stage
    def fit(shift: float) -> None:
        for step in range(3):
            log_metric(LOSS, step + shift, step=step)

    @experiment("churn")
    def pipeline(shift: float) -> None:
        log_param(LAYER, shift)
        fit(shift)

    for shift in (0.25, 0.5):
        pipeline(shift)
    deliver()
    ids = list(trackdsl.runs("churn", where="run_name = 'pipeline'")["run_id"])
    found = trackdsl.compare(*ids)
    assert fit_key(LAYER) in [one.name for one in found]
    page = found.to_html()
    for text in (str(found), Page(found._repr_html_()).text, Page(page).text):
        assert (f"fit: {LOSS}" in text, LAYER in text, "_x00" in text) == (True, True, False)
    assert "<polyline" in page or "<path" in page
    assert LAYER in run_command("compare", *ids).stdout


def test_a_tree_and_a_trace_show_the_original_names(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal, a notebook, and both formats of a trace."""
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", sqlite_store)
    with experiment("churn"):
        log_param(LAYER, 1)
        log_metric(LOSS, 0.5)
    deliver()
    (run_id,) = trackdsl.runs("churn")["run_id"]
    found = trackdsl.tree(run_id)
    for text in (str(found), Page(found._repr_html_()).text):
        assert (LOSS in text, LAYER in text, "_x00" in text) == (True, True, False)
    trace = run_command("trace", run_id).stdout
    assert (LAYER in trace, "_x00" in trace) == (True, False)


def test_what_changed_has_the_original_names(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the tag, in the description, which is inert, and in what the command prints."""
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", sqlite_store)
    monkeypatch.setenv("TRACKDSL_CHANGES", "1")

    @experiment("churn")
    def layered(size: int) -> None:
        log_param(LAYER, size)
        log_metric(LOSS, size)

    for size in (1, 2):
        layered(size)
        deliver()
    tags = client(sqlite_store).get_run(trackdsl.last().id).data.tags  # type: ignore[union-attr]
    assert f"{LAYER} 1 → 2" in tags["trackdsl.changed"]
    assert "loss&lt;script&gt; | 1 | 2 |" in tags["mlflow.note.content"]
    assert f"{LOSS} 1 → 2" in run_command("changes", "layered").stdout


def test_tables_of_runs_have_the_original_names(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In what `ls` and `show` print; their JSON has the names that the store has."""
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", sqlite_store)
    with experiment("churn", run_name="fit"):
        log_param(LAYER, 3)
        log_metric(LOSS, 0.5)
        log_metric("z", 1)
    deliver()
    for command in (["ls", "churn"], ["show", "fit"]):
        table, _, tags = run_command(*command).stdout.partition("tags")
        assert (LAYER in table, LOSS in table, "_x00" in table) == (True, True, False), table
        assert bool(tags) == (command[0] == "show")
        data = run_command(*command, "--json").stdout
        assert f'"{fit_key(LOSS)}": 0.5' in data
