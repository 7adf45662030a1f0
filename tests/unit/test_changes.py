"""What changed between two runs: the comparison, its texts, and the source of what a program uses."""

from __future__ import annotations

import hashlib
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.conftest import examples
from trackdsl._core.escaping import printable
from trackdsl._core.source_text import digest_of, text_of
from trackdsl.store_format.changes.compare import Changes, compare_trees
from trackdsl.store_format.changes.descriptions import description, inert, one_line
from trackdsl.store_format.changes.modules import Modules
from trackdsl.store_format.changes.packages import installed
from trackdsl.store_format.changes.recorded import Program, Recorded, Stage
from trackdsl.store_format.changes.source import used_by, used_by_program
from trackdsl.store_format.changes.stored import diffs


def stage(path: str = "", run_id: str = "", **given: Any) -> Stage:
    """A stage with the given properties."""
    filled = {"status": "FINISHED", "seconds": 1.0, "params": {}, "metrics": {}, "datasets": {}, **given}
    return Stage(path, run_id or f"run{path}", path.rpartition("/")[2] or "pipeline", **filled)


def recorded(*stages: Stage, **program: Any) -> Recorded:
    """A root run with some stages below it."""
    return Recorded("0a", "pipeline", 1_700_000_000_000, stages or (stage(),), Program(**program))


def test_what_is_not_known_is_not_compared() -> None:
    """Where a file was edited since, a function is compared alone: nothing that it uses is reported as new or gone."""
    whole = {"m.train a": {"m.train": "a", "f.scale": "1"}}
    known = recorded(stage("train", function="m.train", digest="a"), code=whole)
    edited = recorded(
        stage("train", function="m.train", digest="a"), code={"m.train a": {"m.train": "a"}}, partial=("m.train a",)
    )
    for changes in (compare_trees(edited, known), compare_trees(known, edited)):
        assert (changes.changes, changes.parts_at) == ((), None)


def test_says_what_differs_and_where_the_runs_part() -> None:
    """A parameter, a called function, packages and a patch: each is reported once, and the earliest stage named."""
    code = {"m.train a": {"m.train": "a", "f.scale": "1"}, "m.main x": {"m.main": "x", "m.train": "a", "f.scale": "1"}}
    before = recorded(
        stage(function="m.main", digest="x", params={"lr": "0.1"}, metrics={"accuracy": 0.5}),
        stage("load", params={"path": "a.csv"}),
        stage("train", function="m.train", digest="a", params={"lr": "0.1"}),
        packages={"numpy": "1.26.4", "old": "1"},
        python="3.11.9",
        commit="aaaaaaaaaaaa",
        patch="",
        code=code,
    )
    later = {key: {**uses, "f.scale": "2"} for key, uses in code.items()}
    after = recorded(
        stage(function="m.main", digest="x", params={"lr": "0.2"}, metrics={"accuracy": 0.75}),
        stage("load", params={"path": "a.csv"}),
        stage("train", function="m.train", digest="a", params={"lr": "0.2"}),
        packages={"numpy": "2.0.0"},
        python="3.12.0",
        commit="bbbbbbbbbbbb",
        patch="p",
        code=later,
    )

    changes = compare_trees(before, after)

    assert one_line(changes) == (
        "lr 0.1 → 0.2; source of f.scale; numpy 1.26.4 → 2.0.0; old 1 → none; Python 3.11.9 → 3.12.0; "
        "commit aaaaaaa → bbbbbbb; uncommitted changes"
    )
    assert (changes.parts_at, changes.parts_by) == ("train", ("lr", "source of f.scale"))
    assert [(one.name, one.stages) for one in changes.of_kind("source")] == [("f.scale", ("", "train"))]
    assert [(one.stage, one.before, one.after) for one in changes.metrics] == [("", 0.5, 0.75)]
    assert diffs(changes, {"1": "def scale():\n    return 1\n", "2": "def scale():\n    return 2\n"})["f.scale"] == (
        "@@ -1,2 +1,2 @@\n def scale():\n-    return 1\n+    return 2"
    )


def test_a_change_inside_a_nested_stage_is_not_blamed_on_the_stage_around_it() -> None:
    """The outer stage uses the changed function only through the inner one, which is named though it is later."""
    sides = []
    for digest in "12":
        inner = {"m.inner i": {"m.inner": "i", "m.helper": digest}}
        outer = {"m.outer o": {"m.outer": "o", "m.inner": "i", "m.helper": digest}}
        stages = stage(), stage("outer", function="m.outer", digest="o")
        below = stage("outer/inner", function="m.inner", digest="i")
        sides.append(recorded(*stages, below, code={**inner, **outer}))
    assert compare_trees(*sides).parts_at == "outer/inner"


def test_what_one_run_does_not_know_of_a_stage_does_not_differ_around_it() -> None:
    """The stage's source is known of the later run only: the root run uses the same in both, and one helper changed."""
    sides = []
    for digest, partial in (("1", ("m.fit f",)), ("2", ())):
        fit = {"m.fit": "f"} if partial else {"m.fit": "f", "h.same": "s", "h.help": digest}
        root = {"script.py": "p", "m.fit": "f", "h.same": "s", "h.help": digest}
        stages = stage(), stage("fit", function="m.fit", digest="f")
        sides.append(recorded(*stages, code={"": root, "m.fit f": fit}, partial=partial))
    changes = compare_trees(*sides)
    assert [change.name for change in changes.changes] == ["h.help"]
    assert (changes.parts_at, changes.parts_by) == ("", ("source of h.help",))


def test_what_only_a_new_stage_uses_does_not_differ_around_it() -> None:
    """A helper that the outer stage called moves into a new stage inside of it: the runs part at the new stage."""
    outer = {"m.outer o": {"m.outer": "o", "m.helper": "h"}}
    inner = {"m.inner i": {"m.inner": "i", "m.helper": "h"}}
    above = stage(), stage("outer", function="m.outer", digest="o")
    after = recorded(*above, stage("outer/inner", function="m.inner", digest="i"), code={**outer, **inner})
    assert compare_trees(recorded(*above, code=outer), after).parts_at == "outer/inner"


def test_calls_of_one_stage_are_compared_with_their_equals() -> None:
    """Three parallel calls that ended up in another order are the same three calls; a fourth is one more run."""
    calls = [stage("fit", run_id=str(number), params={"fold": str(number)}) for number in range(4)]
    changes = compare_trees(recorded(stage(), *calls[:3]), recorded(stage(), *reversed(calls)))
    assert [(one.kind, one.before, one.after) for one in changes.changes] == [("stage", "3 runs", "4 runs")]


def test_another_call_of_a_stage_that_was_there_does_not_make_it_new() -> None:
    """Its number of runs changed, and the runs part there; a stage is new or gone only if the other run had none."""
    once, twice = recorded(stage(), stage("s")), recorded(stage(), stage("s"), stage("s", run_id="2"))
    more, fewer = compare_trees(once, twice), compare_trees(twice, once)
    assert (one_line(more), one_line(fewer)) == ("stage s 1 run → 2 runs", "stage s 2 runs → 1 run")
    assert (more.parts_at, more.parts_by) == ("s", ("s 1 run → 2 runs",))
    assert "- stage **s** 1 run → 2 runs" in description(more, twice, once, "7")
    assert one_line(compare_trees(recorded(stage()), twice)) == "stage s is new, 2 runs"
    assert one_line(compare_trees(twice, recorded(stage()))) == "stage s is gone, 2 runs"


def test_metrics_of_several_calls_of_one_stage_have_the_number_of_their_call() -> None:
    """Three calls with the same metric are three lines that can be told apart, also in MLflow's description."""
    before, after = (
        recorded(
            stage(metrics={"loss": loss}),
            *(stage("train", run_id=f"{at}", params={"fold": f"{at}"}, metrics={"loss": loss}) for at in range(3)),
            stage("check", metrics={"loss": loss}),
        )
        for loss in (0.02, 0.01)
    )
    changes = compare_trees(before, after)
    assert [one.stage for one in changes.metrics] == ["", "train #1", "train #2", "train #3", "check"]
    note = description(changes, after, before, "1")
    assert [line.split("|")[1].strip() for line in note.splitlines() if ": loss |" in line] == [
        "train \\#1: loss", "train \\#2: loss", "train \\#3: loss", "check: loss"]  # fmt: skip


def test_calls_of_one_stage_that_all_changed_are_compared_with_the_most_alike() -> None:
    """If one parameter of all parallel calls changed, the other parameters say which calls belong together."""
    sides = [
        recorded(stage(), *(stage("fit", run_id=fold, params={"fold": fold, "lr": lr}) for fold in order))
        for lr, order in (("0.1", "0123"), ("0.2", "2310"))
    ]
    assert one_line(compare_trees(*sides)) == "lr 0.1 → 0.2"


def test_what_is_not_known_is_no_change() -> None:
    """Without packages or a patch on one side, nothing is reported of them; of a function only the hash is compared."""
    known = recorded(
        stage(function="m.f", digest="a"), packages={"numpy": "2"}, patch="p", code={"m.f a": {"m.f": "a", "m.g": "b"}}
    )
    assert not compare_trees(known, recorded(stage(function="m.f", digest="a"))).changes
    changed = compare_trees(known, recorded(stage(function="m.f", digest="c")))
    assert [(one.name, one.before, one.after) for one in changed.changes] == [("m.f", "a", "c")]


texts = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)
stages = st.lists(
    st.builds(
        Stage,
        path=st.sampled_from(["a", "b", "a/c"]),
        run_id=st.uuids().map(str),
        name=st.text(max_size=5),
        status=st.sampled_from(["FINISHED", "FAILED"]),
        seconds=st.none() | st.floats(0, 10),
        params=texts,
        metrics=st.dictionaries(st.text(max_size=5), st.floats(), max_size=3),
        datasets=texts,
        function=st.sampled_from(["", "m.f", "m.g"]),
        digest=st.sampled_from(["1", "2"]),
    ),
    max_size=6,
)


@settings(max_examples=examples(100))
@given(stages, stages)
def test_any_two_trees_compare(one: list[Stage], other: list[Stage]) -> None:
    """A tree does not differ from itself; what one tree has more, the other has less."""
    left, right = recorded(stage(), *one), recorded(stage(), *other)
    assert not compare_trees(left, left).changes
    there, back = compare_trees(left, right), compare_trees(right, left)
    assert sorted(each.name for each in there.of_kind("stage") if each.before is None) == sorted(
        each.name for each in back.of_kind("stage") if each.after is None
    )
    assert "\n" not in one_line(there)
    assert printable(one_line(there)) == one_line(there)


#: MLflow shows a description with tables, strikethrough and links of bare addresses.
_MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
_HOSTILE = [
    "[a](javascript:alert(1))", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "![x](http://x/y.png)",
    "</td></table><h1>", "| a | b |", "`x`", "**x**", "# x", "- x", "1. x", "http://x.test/", "[x]: javascript:1",
    "&lt;",    "a\n\n<b>", "\x1b[31m", "_x_", "~~x~~", "<javascript:alert(1)>", "\\[a](b)", "<!--", "\u202ex",
]  # fmt: skip


@settings(max_examples=examples(200))
@given(st.lists(st.sampled_from(_HOSTILE) | st.text(max_size=10), max_size=4).map("".join))
def test_no_name_or_value_is_markup(text: str) -> None:
    """Whatever a name or value contains, Markdown shows it as text, in a paragraph and in a table."""
    assert re.sub(r"</?p>", "", _MARKDOWN.render(f"a {inert(text)}")).count("<") == 0
    row = _MARKDOWN.render(f"| a | b |\n|---|---|\n| x{inert(text)} | y |\n")
    assert row.count("<td>") == 2
    assert not re.search(r"<(?!/?(table|thead|tbody|tr|th|td)>)", row)


def test_a_description_of_hostile_names_has_the_links_to_runs_and_no_others() -> None:
    """Names of runs, stages, parameters and metrics are inert; the only links lead to pages of runs."""
    for hostile in _HOSTILE:
        before, after = (
            recorded(
                stage(params={hostile: value}, metrics={hostile: number}),
                stage(hostile, run_id="0123abcd", params={"x": hostile + value}),
                packages={hostile: value},
            )
            for value, number in (("1", 1.0), ("2", 2.0))
        )
        html = _MARKDOWN.render(description(compare_trees(before, after), after, before, "7", [hostile]))
        links = re.findall(r"<a [^>]*>", html)
        assert set(links) <= {f'<a href="#/experiments/7/runs/{id_}">' for id_ in ("0a", "0123abcd")}
        assert not re.search(r"<(?!/?(a|table|thead|tbody|tr|th|td|p|ul|li|strong|em|code)\b)", html), html


@pytest.mark.parametrize("text", ["<", "\x01", "&", "@", "x", "日"])
def test_a_description_fits_into_a_tag(text: str) -> None:
    """However long the names and values are, it is whole Markdown of at most 8000 characters, with links."""
    before, after = (
        recorded(
            stage(),
            *(
                stage(
                    text * 90 + str(number),
                    run_id=f"{number:032x}",
                    params={f"{text * 80}{number}{one}": text * 500 + value for one in range(20)},
                    metrics={f"{text * 80}{one}": float(value) for one in range(20)},
                )
                for number in range(40)
            ),
        )
        for value in ("1", "2")
    )
    for earlier in (before, None):
        changes = None if earlier is None else compare_trees(earlier, after)
        found = description(changes, after, earlier, "7", [text * 500] * 3)
        assert len(found) <= 8000
        html = _MARKDOWN.render(found)
        assert "#/experiments/7/runs/" in html
        assert not re.search(r"<(?!/?(a|table|thead|tbody|tr|th|td|p|ul|li|strong|em|code)\b)", html), html


def test_changes_that_are_gone_have_no_diff() -> None:
    """A patch that was committed since is not shown as a difference between differences."""
    changes = compare_trees(recorded(stage(), patch="1"), recorded(stage(), patch=""))
    assert [change.kind for change in changes.changes] == ["patch"]
    assert diffs(changes, {"1": "diff --git a/x b/x"}) == {}


def test_a_long_line_says_how_much_is_left_out() -> None:
    """The line for the tag has at most 250 characters, and counts what it leaves out."""
    many = {f"parameter_{number}": "x" * 100 for number in range(50)}
    line = one_line(compare_trees(recorded(stage()), recorded(stage(params=many))))
    assert len(line) <= 250
    assert re.search(r"; and \d+ more$", line)
    assert one_line(Changes()) == "nothing"
    assert one_line(Changes(), ["packages were installed"]) == "nothing, as far as is known"
    assert one_line(None) == "first run"


PROJECT = {
    "program.py": """
import features as f
from package import clip
from package.deep import *
OPTIONS = {"a": 1}
def decorate(fn): return fn
class Trainer:
    def fit(self, x):
        return self.help(x) + OPTIONS["a"]
    def help(self, x): return x
@decorate
def train(x, how=clip):
    import late
    return f.scale(x) + deep(x) + late.late(x) + len(str(x))
def outer():
    def helper(): return 1
    def inner(): return helper()
    return inner
""",
    "features.py": """
from package import clip as c
LIMIT = 3
API_KEY = "sk-abcdefghijklmnop1234567890abcdef"
def scale(x): return c(x) * LIMIT * len(API_KEY)
def unused(): ...
""",
    "package/__init__.py": "from .low import clip\n",
    "package/low.py": "def clip(x): return min(x, BOUND)\nBOUND = 1\n",
    "package/deep.py": "def deep(x): return x\n",
    "late.py": "def late(x): return late(x)\n",
    "broken.py": "def (:\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a small project."""
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def _used(project: Path, name: str, began: int | None = None, file: str = "program.py") -> Any:
    path = project / file
    code = next(
        const
        for const in Modules([]).at(str(path)).codes
        if const.co_qualname == name  # type: ignore[union-attr]
    )
    digest = digest_of(text_of(code, path.read_text().splitlines(keepends=True)))
    modules = Modules([str(project), *sys.path])
    return used_by(f"__main__.{name}", str(path), digest, modules, time.time_ns() if began is None else began)


def test_finds_what_a_function_uses_of_its_project(project: Path) -> None:
    """Imports of every form, decorators, defaults, constants and methods lead to definitions; secrets are masked."""
    used = _used(project, "train").definitions
    assert set(used) == {
        *("__main__.train", "__main__.decorate", "package.low.clip", "package.low.BOUND", "features.scale"),
        *("features.LIMIT", "features.API_KEY", "package.deep.deep", "late.late"),
    }
    assert next(iter(used)) == "__main__.train"
    assert used["features.API_KEY"].text == 'API_KEY = "***"\n'
    assert used["__main__.train"].text.startswith("@decorate\ndef train(")
    assert set(_used(project, "Trainer.fit").definitions) == {
        *("__main__.Trainer.fit", "__main__.Trainer.help", "__main__.OPTIONS")
    }
    assert "__main__.outer.<locals>.helper" in _used(project, "outer.<locals>.inner").definitions


def test_finds_what_a_program_does_at_its_top_level(project: Path) -> None:
    """Statements count, with what they use; functions and classes only if they are used. Imports do nothing."""
    path = project / "script.py"
    path.write_text("from features import scale\nK = 2\ndef used(x): return x\ndef idle(): ...\nused(scale(K))\n")
    modules, now = Modules([str(project)]), time.time_ns()
    found = used_by_program("script.py", str(path), "", modules, now)
    assert found is not None
    assert set(found.definitions) == {
        *("script.py", "__main__.used", "features.scale", "features.LIMIT", "features.API_KEY"),
        *("package.low.clip", "package.low.BOUND"),
    }
    assert found.definitions["script.py"].text == "K = 2\nused(scale(K))\n"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    known = used_by_program("script.py", str(path), digest, modules, now)
    assert known is not None
    assert known.definitions == found.definitions
    assert used_by_program("script.py", str(path), "0" * 16, modules, now) is None
    assert used_by_program("script.py", str(project / "missing.py"), "", modules, now) is None
    edited = used_by_program("script.py", str(path), "", modules, 0)
    assert edited is not None
    assert (edited.definitions, edited.edited) == ({}, {str(path)})


def test_source_that_may_not_be_what_ran_is_left_out(project: Path) -> None:
    """A function whose text has another hash is unknown; so is a definition in a file that was edited since."""
    began = time.time_ns()
    modules = Modules([str(project)])
    assert used_by("__main__.train", str(project / "program.py"), "0" * 16, modules, began) is None
    assert used_by("__main__.x", str(project / "broken.py"), "0" * 16, modules, began) is None
    assert used_by("__main__.x", str(project / "missing.py"), "0" * 16, modules, began) is None
    for number, text in enumerate(("return 1\n", "def x():\n  x = 1\n  global x\n", "yield\n", "await x\n", "break\n")):
        (project / f"half{number}.py").write_text(text)  # It can be parsed, and is not Python.
        assert used_by("__main__.x", str(project / f"half{number}.py"), "0" * 16, modules, began) is None
    edited = _used(project, "train", began=0)
    assert list(edited.definitions) == ["__main__.train"]
    assert str(project / "features.py") in edited.edited


def test_packages_are_those_that_importlib_sees() -> None:
    """Names and versions are those of `importlib.metadata`, without reading a file."""
    from importlib.metadata import version

    found = installed(sys.path)
    assert found["pytest"] == version("pytest")
    assert found["mlflow"] == version("mlflow")
