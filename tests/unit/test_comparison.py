"""Comparisons of trees: which stages belong together, what is shown, and that hostile content stays text."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_report import HOSTILE, Page
from trackdsl.cli._comparison import as_structure
from trackdsl.query._aligned import aligned
from trackdsl.query._changes import RunChanges
from trackdsl.query._compared import ComparedStage, Difference
from trackdsl.query._comparison import Comparison
from trackdsl.query._parallel import axes_of
from trackdsl.store_format.changes.compare import Change
from trackdsl.store_format.changes.recorded import Stage


def stage(path: str, run_id: str, **params: str) -> Stage:
    return Stage(path, run_id, path.rpartition("/")[2], "FINISHED", 1.0, params, {}, {})


def shown(rows: list[tuple[Stage | None, ...]]) -> list[list[str]]:
    return [["-" if one is None else one.run_id for one in row] for row in rows]


def test_stages_of_the_same_path_belong_together() -> None:
    """Stages with equal parameters are paired first, then by order; new stages follow the one that they came after."""
    first = [stage("", "a"), stage("load", "a1"), stage("fit", "a2", k="1"), stage("fit", "a3", k="2")]
    second = [
        stage("", "b"),
        stage("fit", "b1", k="2"),
        stage("fit", "b2", k="3"),
        stage("check", "b3"),
        stage("fit", "b4"),
    ]
    third = [stage("", "c"), stage("check", "c1")]
    assert shown(aligned([first, second, third])) == [
        ["a", "b", "c"],
        ["a1", "-", "-"],
        ["a2", "b2", "-"],
        ["-", "b3", "c1"],
        ["-", "b4", "-"],
        ["a3", "b1", "-"],
    ]


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6), min_size=2, max_size=4))
def test_every_stage_is_in_one_row(trees: list[list[str]]) -> None:
    """Whatever the trees are, each stage is in exactly one row, with stages of the same path only."""
    stages = [
        [stage("", f"{at}"), *(stage(path, f"{at}.{number}") for number, path in enumerate(paths))]
        for at, paths in enumerate(trees)
    ]
    rows = aligned(stages)
    for at, tree in enumerate(stages):
        assert sorted(row[at].run_id for row in rows if row[at] is not None) == sorted(one.run_id for one in tree)
    assert all(len({one.path for one in row if one is not None}) == 1 for row in rows)


def compared(*differences: Difference, runs: int = 3, text: str = "x") -> Comparison:
    """A comparison of runs with one stage below them, all of whose texts are the given one."""
    ids, whole = tuple(f"{at:032x}" for at in range(runs)), (1.0,) * runs
    below = ComparedStage(
        text, (None, *ids[1:]), (None, *(text,) * (runs - 1)), tuple(map(float, range(runs))),
        tuple(Difference(kind, text, (None, *(f"{text}{at}" for at in ids[1:]))) for kind in ("params", "metrics")),
    )  # fmt: skip
    changed = RunChanges(
        run_id=ids[1], name=text, previous=ids[0], previous_name=text, previous_start=None, summary=text,
        changes=(Change("source", text, text, text, (text,)), Change("package", text, text, text)), parts_at=text,
        parts_by=(text,), metrics=(), diffs={text: f"+{text}\n-{text}"}, unknown=(text,),
    )  # fmt: skip
    top = ComparedStage("", ids, (text,) * runs, whole)
    labels = tuple(f"{text} {at}" for at in range(runs))
    return Comparison(ids, (text,) * runs, labels, differences, 1, (top, below), (changed,) * (runs - 1), "sqlite:///x")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_inert(text: str) -> None:
    """In a terminal, a notebook and a page, a hostile name, value, path or diff is shown as text."""
    values = (f"{text}1", f"{text}2", f"{text}3")
    found = compared(
        *(Difference(kind, f"{text} {kind}", values) for kind in ("params", "source", "tags")),
        Difference("metrics", text, (1.0, math.nan, 2.0)),
        text=text,
    )
    assert not re.search("[\x00\x1b\u2028\u202e]", str(found) + found._repr_html_() + found.to_html())
    for html, others in ((found.to_html(), {"meta", "style"}), (found._repr_html_(), set[str]())):
        page = Page(html)
        allowed = {"html", "head", "title", "body", "header", "nav", "main", "section", "footer", "h1", "h2", "h3", "p",
                   "a", "div", "span", "b", "i", "small", "table", "thead", "tbody", "tr", "th", "td", "ol", "ul", "li",
                   "details", "summary", "pre", "br", "svg", "path", "line", "text", "figure"}  # fmt: skip
        assert {tag for tag, _ in page.elements} <= allowed | others
        for _, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcdoc", "xlink:href")]
            assert re.match(r"#[a-z-]*\Z", attributes.get("href") or "#")


def test_infinity_is_no_number_to_subtract() -> None:
    """MLflow stores the largest number for infinity: no difference is as large, and no axis reaches to it."""
    largest = sys.float_info.max
    one = Difference("metrics", "loss", (1.0, largest, 3.0))
    assert one.deltas == (0.0, None, 2.0)
    (axis,) = [each for each in axes_of(compared(one)) if each.name == "loss"]
    assert [text for _, text in axis.ticks] == ["1", "3"]
    assert axis.positions == (0.0, None, 1.0)


def test_long_texts_are_broken() -> None:
    """In a notebook, a long name or value moves no other value out of sight; in a page, no title is wider than it."""
    found = compared(Difference("params", "n" * 300, ("v" * 300, "1", "2")))
    html = found._repr_html_()
    assert html.count('<td style="overflow-wrap:anywhere') == 2
    assert "n" * 161 not in html.partition("</table>")[0]
    assert re.search(r"h3 \{[^}]*overflow-wrap: anywhere", found.to_html())


def test_what_is_shown() -> None:
    """Parameters come first, metrics have deltas, and stages that only some runs have are listed."""
    found = compared(
        Difference("metrics", "accuracy", (0.5, 0.75, math.nan)), Difference("params", "lr", ("1", "2", "3"))
    )
    lines = str(found).splitlines()
    assert [line for line in (text.split("│")[0].strip() for text in lines[2:]) if line][:7] == [
        "params", "lr", "x: x", "metrics", "accuracy", "x: x", "stages"]  # fmt: skip
    assert next(line.split("│") for line in lines if "accuracy" in line)[2].split() == ["0.75", "+0.25"]
    ids = [attributes["id"] for tag, attributes in Page(found.to_html()).elements if tag == "section"]
    assert ids == ["parameters", "metrics", "plot", "stages", "time", "program"]
    # The id is last: on a phone what is right of it would be out of sight.
    assert re.findall(r"<th\b[^>]*>([^<]*)", found.to_html().partition("</header>")[0]) == [
        "run",
        "status",
        "time",
        "id",
    ]
    assert "plot" not in Page(compared(runs=2).to_html()).ids()


def test_more_runs_than_the_program_is_compared_for() -> None:
    """Text, notebook, page and JSON say so: null in JSON is for a run of which the program was not compared."""
    whole = compared(runs=10)
    many = replace(whole, changes=whole.changes[:7])
    nothing = tuple(replace(one, changes=(), parts_at=None, diffs={}, unknown=()) for one in many.changes)
    unchanged = replace(many, stages=whole.stages[:1], changes=nothing)
    for found in (many, unchanged):
        for shown_text in (str(found), found._repr_html_(), found.to_html()):
            assert "What changed in the program is compared for the first 8 runs only." in shown_text
    assert "No differences" in str(unchanged)
    assert "No differences" in unchanged.to_html()
    for shown_text in (str(whole), whole._repr_html_(), whole.to_html()):
        assert "is compared for" not in shown_text
    changes = as_structure(many)["changes"]
    assert [one if one is None else one["name"] for one in changes] == ["x"] * 7 + [None] * 2


def test_which_values_are_the_same() -> None:
    """The count is of the runs' own values, and says so where there are stages, whose equal values are not counted."""
    found = compared(Difference("params", "lr", ("1", "2", "3")))
    alone = replace(found, stages=found.stages[:1], same=2)
    for one, text in ((found, "1 more of the runs themselves is the same"), (alone, "2 more are the same")):
        assert text in str(one)
        assert text in one._repr_html_()
    equal = replace(found, differences=(), changes=(), stages=(found.stages[0],) * 2)
    assert "No differences; 1 value of the runs themselves is the same." in str(equal)
    assert "No differences; 1 value of the runs themselves is the same." in equal._repr_html_()
    assert "<p>1 value of the runs themselves is the same.</p>" in equal.to_html()


def test_axes_of_parallel_coordinates() -> None:
    """Numbers that are far apart have a logarithmic axis; texts are in order; what is missing has no position."""
    log, texts, missing, huge = axes_of(
        Comparison(
            ("a", "b", "c"), ("a", "b", "c"), ("a", "b", "c"),
            (
                Difference("params", "lr", ("0.001", "0.1", "10")),
                Difference("params", "model", ("rf", "svm", "rf")),
                Difference("metrics", "loss", (1.0, None, math.nan)),
                Difference("metrics", "huge", (-1.7e308, 0.0, 1.7e308)),
                Difference("metrics", "none", (math.nan, None, math.nan)),
            ), 0,
        )
    )  # fmt: skip
    assert log.positions == pytest.approx((0, 0.5, 1))
    assert texts.positions == (0, 1, 0)
    assert missing.positions == (0.5, None, None)
    assert huge.positions == (0, 0.5, 1)


def test_a_figure_of_plotly_has_no_markup_of_values() -> None:
    """Plotly takes tags in titles for markup, so they are escaped there."""
    pytest.importorskip("plotly")
    figure = compared(
        Difference("params", "<a href='x'>", ("1", "2", "3")), Difference("metrics", "m", (1.0, None, 2.0))
    ).parallel_coordinates()
    labels = [one.label for one in figure.data[0].dimensions]
    assert labels[:2] == ["&lt;a href=&#x27;x&#x27;&gt;", "x: x"]
    assert "<" not in "".join(labels)
    assert list(figure.data[0].dimensions[-2].values) == [0.0, -0.12, 1.0]
