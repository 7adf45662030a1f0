"""The JSON tags of a run: `trackdsl.call` and `trackdsl.files`."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import examples
from trackdsl.store_format.call_tag import (
    CALL_TAG,
    FIELDS,
    MAX_CALL,
    call_of,
    call_text,
    call_value,
    fit_call,
    with_git_dirty,
)
from trackdsl.store_format.files_tag import MAX_FILES, FileNote, note_of_file, with_files

CALL = {CALL_TAG: call_text({"function": "shop.fit", "index": 3, "git_dirty": False, "spool": "aa"})}
HASH = "0a56b39152ef157051e049f6cb47722b9671911dc5aa01f92883f0fc1e5d6763"
PATHS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=3000)
NOTES = st.builds(FileNote, st.sampled_from(["object", "builtins.dict"]), st.sampled_from(["", HASH]), st.booleans())


def test_the_fields_of_a_call_read_the_same_from_both_forms() -> None:
    """One JSON tag and the single tags of older versions give the same fields, and the same texts for filters."""
    fields = {"function": "shop.größe", "file": "a.py", "source_hash": "0b", "index": 0, "decorator": "stage"}
    fields |= {"host": "vm", "pid": 7, "version": "0.1.0", "git_dirty": True}
    single = {FIELDS[name]: str(value).lower() if value is True else str(value) for name, value in fields.items()}
    joined = {CALL_TAG: call_text(fields)}
    assert joined[CALL_TAG].isascii()
    assert call_of(single) == call_of(joined) == fields
    for name, tag in FIELDS.items():
        assert call_value(joined, tag) == call_value(single, tag) == call_value(joined, f"trackdsl.call.{name}")


@pytest.mark.parametrize("text", ["", "]", "3", '"x"', '{"function": ', "[" * 7000])
def test_a_damaged_call_tag_has_no_fields(text: str) -> None:
    """A tag that holds no JSON object reads as one without fields."""
    assert call_of({CALL_TAG: text}) == {}
    assert call_value({CALL_TAG: text}, "trackdsl.function") is None


_VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda one: st.lists(one, max_size=2))


@settings(max_examples=examples(100))
@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), _VALUES))
def test_a_field_of_another_type_is_left_out(fields: dict[str, Any]) -> None:
    """Anybody can set the tag: a field counts only with the type that trackdsl writes, and the others still do."""
    types = {"index": int, "pid": int, "git_dirty": bool}
    kept = {name: value for name, value in fields.items() if type(value) is types.get(name, str)}
    assert call_of({CALL_TAG: json.dumps(fields)}) == kept
    single = {"trackdsl.pid": "x", "trackdsl.host": "vm"}
    assert call_of(single) == {"host": "vm"}
    assert call_of({CALL_TAG: '{"host": ["x"]}', **single}) == {"host": "vm"}


@given(st.text(max_size=9000), st.text(max_size=9000))
def test_a_long_call_is_cut_and_stays_json(function: str, file: str) -> None:
    """The call tag fits MLflow's limit however long its texts are, and its short fields are complete."""
    text = fit_call(call_text({"function": function, "file": file, "index": 4, "host": "vm"}))
    assert len(text) <= MAX_CALL
    assert (json.loads(text)["index"], json.loads(text)["host"]) == (4, "vm")


def test_gits_answer_goes_into_the_call_of_the_run() -> None:
    """A run with the JSON tag gets a field; a run of an older version keeps a tag of its own."""
    tags = {"trackdsl.git.dirty": "true", "mlflow.source.git.commit": "c0"}
    written = with_git_dirty(tags, CALL)
    assert written.keys() == {CALL_TAG, "mlflow.source.git.commit"}
    assert call_of(written) == call_of(CALL) | {"git_dirty": True, "spool": "aa"}
    assert with_git_dirty(tags, {"trackdsl.function": "shop.fit"}) == tags
    assert with_git_dirty(written, CALL) == written


@settings(max_examples=examples(40))
@given(st.dictionaries(PATHS, NOTES, min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_files_are_found_again_however_they_arrive(files: dict[str, FileNote], order: random.Random) -> None:
    """Every file is found in tags that MLflow takes; writing it twice, or in other stretches, changes nothing."""
    held = dict(CALL)
    left = list(files.items())
    while left:
        part = dict(left[: order.randint(1, 9)])
        left = left[len(part) :]
        written = with_files(held, "aa", part)
        assert all(len(text) <= MAX_FILES for text in written.values())
        held |= written
        again = with_files(held, "aa", part)
        assert held | again == held
    assert {path: note_of_file(held, path) for path in files} == files
    assert sum(tag.startswith("trackdsl.files") for tag in held) <= 1 + sum(map(len, map(json.dumps, files))) // 1500
    assert note_of_file(held, "no such file") is None


def test_a_few_files_share_one_tag() -> None:
    """Ten files with hashes are in one tag; a hundred are in a few numbered tags."""
    ten = with_files(CALL, "aa", {f"models/{n}.pkl": FileNote("object", HASH) for n in range(10)})
    assert ten.keys() == {"trackdsl.files"}
    hundred = with_files(CALL, "aa", {f"models/{n}.pkl": FileNote("object", HASH) for n in range(100)})
    assert set(hundred) == {"trackdsl.files", "trackdsl.files.2", "trackdsl.files.3"}


def test_a_file_that_is_recorded_again_counts_as_last_recorded() -> None:
    """The later entry for a path counts, also if it has outgrown its tag and other files fill that tag."""
    held = CALL | with_files(CALL, "aa", {f"{n}.pkl": FileNote("object") for n in range(110)})
    full = set(held)
    for handler in ("builtins.dict", "x" * 4000, "y" * 4500):
        held |= with_files(held, "aa", {"0.pkl": FileNote(handler)})
        assert note_of_file(held, "0.pkl") == FileNote(handler)
        assert all(note_of_file(held, f"{n}.pkl") == FileNote("object") for n in range(1, 110))
    assert set(held) > full


def test_every_spool_writes_tags_of_its_own() -> None:
    """No spool rewrites a tag of another one, and of one path the entry that was written last counts."""
    held = CALL | with_files(CALL, "aa", {"a.pkl": FileNote("object", "1"), "b.pkl": FileNote("object", "1")})
    for spool, digest in (("bb", "2"), ("aa", "3"), ("cc", "4"), ("bb", "5")):
        written = with_files(held, spool, {"a.pkl": FileNote("object", digest)})
        assert written.keys() == {"trackdsl.files" if spool == "aa" else f"trackdsl.files.from-{spool}"}
        held |= written
        assert held | with_files(held, spool, {"a.pkl": FileNote("object", digest)}) == held
        found = note_of_file(held, "a.pkl")
        assert found is not None
        assert found.sha256 == digest
    assert note_of_file(held, "b.pkl") == FileNote("object", "1")
    assert with_files({}, "bb", {"x": FileNote("object")}).keys() == {"trackdsl.files.from-bb"}


def test_the_tags_of_older_versions_count_until_a_file_is_recorded_again() -> None:
    """A file of a store that an older version wrote is read as recorded; a resumed run that records it again wins."""
    single = '{"handler": "object", "sha256": "1"}'
    held = {"trackdsl.artifact.layers_x005B_0_x005D_.pkl": single, "trackdsl.artifact.b.pkl": single}
    assert note_of_file(held, "layers[0].pkl") == FileNote("object", "1")
    held |= with_files(held, "aa", {"layers[0].pkl": FileNote("object", "2")})
    found = note_of_file(held, "layers[0].pkl")
    assert found is not None
    assert found.sha256 == "2"
    assert note_of_file(held, "b.pkl") == FileNote("object", "1")


def test_a_damaged_tag_hides_no_file_of_another_tag() -> None:
    """A file is found beside a damaged tag; of one that may have been in it, the damage is reported."""
    held = CALL | with_files(CALL, "aa", {"a.pkl": FileNote("object")}) | {"trackdsl.files.2": "]"}
    assert note_of_file(held, "a.pkl") == FileNote("object")
    with pytest.raises(ValueError, match="Expecting value"):
        note_of_file(held, "b.pkl")
    held |= with_files(held, "aa", {"b.pkl": FileNote("object")})
    assert note_of_file(held, "b.pkl") == FileNote("object")
