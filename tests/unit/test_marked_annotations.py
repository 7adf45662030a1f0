"""Markers in odd annotations: `Secret`, `Ignore` and others count everywhere, also beside unresolvable names."""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Optional, TypedDict
from unittest import mock

import attrs
import numpy as np
import pydantic
import pytest

from tests.unit.one_run import PLANT, flattened, metrics_of, params_of, recorded, returned
from trackdsl import Dataset, Ignore, Metric, Param, Secret, stage, track_returns
from trackdsl.handlers._marked_fields import fields_of

if TYPE_CHECKING:
    import a_library_for_type_checkers as lib
    from a_library_for_type_checkers import Frame
Key = Annotated[str, Secret]


@stage
def marked(
    frame: lib.Frame,
    key: Annotated[str, Secret],
    other: Annotated[lib.Text, Secret()],
    optional: Optional[Annotated[str, Secret]] = PLANT,  # noqa: UP045 - both ways of writing it
    union: Annotated[str, Secret] | None = PLANT,
    unknown: Frame | Annotated[str, Secret] = PLANT,
    final: Final[Annotated[str, Secret]] = PLANT,
    items: list[Annotated[str, Secret]] = [PLANT],  # noqa: B006
    values: dict[str, Annotated[lib.Text, Secret]] = {"a": PLANT},  # noqa: B006
    quoted: Annotated["lib.Text", Secret] = PLANT,  # noqa: UP037 - text in text
    odd: lib.Frame[Annotated[str, Secret]] = PLANT,
    alias: Key = PLANT,
    big: Annotated[list, Ignore] | None = None,
    rate: Annotated[float, Param("lr")] | None = None,
) -> None: ...


def test_an_annotation_that_cannot_be_read_loses_no_marker() -> None:
    """Each marker counts if an annotation cannot be resolved: nested, optional, or beside others."""
    found = params_of(marked, 1, PLANT, PLANT, big=[1], rate=0.5)
    assert PLANT not in str(found)
    assert {name for name, value in found.items() if value == "***"} == {
        "key", "other", "optional", "union", "unknown", "final", "items", "values", "quoted", "odd", "alias",
    }  # fmt: skip
    assert {name: found[name] for name in ("frame", "lr")} == {"frame": 1, "lr": 0.5}
    assert "big" not in found


def test_markers_of_names_that_only_type_checkers_know() -> None:
    """`Secret` imported for type checkers alone still masks, also in text that is not Python."""
    namespace: dict[str, Any] = {"__name__": __name__, "Any": Any}
    exec(  # noqa: S102
        "from __future__ import annotations\n"
        "def f(a: Annotated[str, Secret], b: t.Annotated[lib.X, tr.Secret()], c: 'Any[Secret', d: lib.Secretary,\n"
        "      e: Optional[Annotated[str, Ignore]] = 1): ...",
        namespace,
    )
    assert params_of(stage(namespace["f"]), 1, 2, 3, 4) == {"a": "***", "b": "***", "c": "***", "d": 4}


def test_markers_of_local_names() -> None:
    """Names that are local to the surrounding function or class are resolved while a function is decorated."""
    Hidden = Annotated[str, Secret]  # noqa: F841, N806 - an annotation names it

    class Local:
        Quiet = Annotated[int, Ignore]

        @stage
        def method(self, x: Local, key: Hidden, quiet: Quiet) -> None: ...

    @stage
    def function(x: Local, key: Hidden) -> None: ...

    assert params_of(Local().method, 1, PLANT, 2) == {"x": 1, "key": "***"}
    assert params_of(function, 1, PLANT) == {"x": 1, "key": "***"}


def test_markers_of_what_is_called_like_a_function() -> None:
    """`functools.partial` and objects with `__call__` have the markers of their function."""

    def fn(a: int, key: Annotated[str, Secret]) -> None: ...

    class Callable_:  # noqa: N801
        key: int = 1

        def __call__(self, key: Annotated[str, Secret]) -> None: ...

    assert params_of(stage(functools.partial(fn, 1)), PLANT) == {"key": "***"}
    assert params_of(stage(Callable_()), PLANT) == {"key": "***"}


class Login(TypedDict, total=False):
    user: str
    key: Annotated[str, Secret]
    note: Annotated[str, Ignore]
    frame: lib.Frame


class Tree(TypedDict, total=False):
    parent: Tree | None
    key: Annotated[str, Secret]


class Service(TypedDict):
    login: Login
    rest: list[Login]
    parent: Service | None


def test_marked_fields_of_typed_dicts() -> None:
    """Fields of a `TypedDict` that its annotation names are hidden, at any depth and in lists too."""
    login: Login = {"user": "u", "key": PLANT, "note": PLANT}
    service: Service = {"login": login, "rest": [login], "parent": {"login": login, "rest": [], "parent": None}}

    @dataclasses.dataclass
    class Config:
        login: Login | None

    @stage("{a[key]}")
    def f(a: Login, b: Service, c: list[Login], d: dict[str, Login], e: Config) -> None: ...

    run = recorded(f, login, service, [login], {"x": login}, Config(login))
    assert PLANT not in str(run.params)
    assert run.name == "***"
    assert run.params["a.user"] == run.params["b.parent.login.user"] == run.params["c.0.user"] == "u"
    assert run.params["a.key"] == run.params["b.rest.0.key"] == run.params["e.login.key"] == "***"
    assert run.params["d"] == "***"
    assert login["key"] == PLANT


def test_marked_fields_of_a_typed_dict_of_itself() -> None:
    """A recursive `TypedDict` hides its marked fields, also a field that is read before the class is complete."""

    @stage
    def f(tree: Tree) -> None: ...

    assert params_of(f, {"parent": {"parent": {"key": PLANT}}}) == {"tree.parent.parent.key": "***"}


def test_keywords_of_a_typed_dict() -> None:
    """`**options: Unpack[...]` hides the keywords that are marked in the `TypedDict`."""
    typing_extensions = pytest.importorskip("typing_extensions")

    def f(**options: Any) -> None: ...

    f.__annotations__["options"] = typing_extensions.Unpack[Login]
    assert params_of(stage(f), user="u", key=PLANT, note=PLANT) == {"user": "u", "key": "***"}


@dataclasses.dataclass
class Account:
    frame: lib.Frame
    key: Annotated[str, Secret]
    optional: Optional[Annotated[str, Secret]] = PLANT  # noqa: UP045
    skip: Annotated[lib.Text, Ignore] = PLANT
    shared: ClassVar[Annotated[str, Secret]] = PLANT


def test_marked_fields_beside_unresolvable_ones() -> None:
    """A field with an unknown type loses none of the others' markers, also in local classes."""

    class Inner: ...

    @dataclasses.dataclass
    class Local:
        inner: Inner
        key: Annotated[str, Secret] | None

    @attrs.define
    class Attrs:
        inner: Inner
        key: Annotated[str, Secret]

    for value in (Account(1, PLANT), Local(1, PLANT), Attrs(1, PLANT)):
        assert flattened(value).values["x.key"] == "***"
        assert PLANT not in str(flattened(value).values)


def test_a_name_that_is_defined_later_counts_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unresolved name is not cached: once it is defined, it is found."""
    module = types.ModuleType("a_module_in_the_making")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(  # noqa: S102
        "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass A:\n    key: Later\n",
        vars(module),
    )
    value = module.A(PLANT)
    assert flattened(value).values == {"x.key": PLANT}
    before = fields_of(module.A)
    assert fields_of(module.A) is before
    module.Later = Annotated[str, Secret]
    assert flattened(value).values == {"x.key": "***"}


def test_default_none_hides_as_well() -> None:
    """`Annotated[...] = None` hides and ignores too."""

    @stage
    def f(key: Annotated[str, Secret] = None, big: Annotated[list, Ignore] = None) -> None: ...  # noqa: RUF013

    assert params_of(f, PLANT, [1]) == {"key": "***"}


def test_markers_of_optional_returns() -> None:
    """A marker on a part of an optional tuple, or beside an unresolvable one, names the metric."""

    @stage
    @track_returns
    def f() -> tuple[Annotated[float, Metric("acc")] | None, lib.Frame, Annotated[str, Secret]] | None:
        return 0.5, 2.0, PLANT

    run = recorded(f)
    assert metrics_of(run) == {"acc": 0.5, "f.1": 2.0}
    assert not run.artifacts


class Raises:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("make", [lambda: np.array([1, 2, 3]), Raises, lambda: mock.ANY])
def test_metadata_is_not_compared(make: Callable[[], Any]) -> None:
    """Other libraries' metadata with any `==` does not fail decoration, and is not taken for a marker."""

    def f(x: Any) -> None: ...

    f.__annotations__["x"] = Annotated[int, make()]
    assert params_of(stage(f), 1) == {"x": 1}


def test_a_dataclass_that_is_a_dict() -> None:
    """Fields and items of a dataclass that is a dict are recorded; marked ones stay hidden among the items."""

    @dataclasses.dataclass
    class Both(dict):  # type: ignore[type-arg]
        a: int = 1
        key: Annotated[str, Secret] = PLANT

    both = Both()
    both.update(b=2, key=PLANT)
    assert flattened(both).values == {"x.a": 1, "x.key": "***", "x.b": 2}


class Table(pydantic.RootModel[dict[str, int]]): ...


class Rows(pydantic.RootModel[list[int]]): ...


class Hidden(pydantic.RootModel[Annotated[str, Secret]]): ...


def test_root_models_are_what_they_hold() -> None:
    """pydantic's `RootModel` is described as its root, by leaf or in one line."""
    assert flattened(Table({"a": 1})).values == {"x.a": 1}
    assert flattened(Rows([1, 2])).values == {"x": "[1, 2]"}
    assert flattened(Hidden(PLANT)).values == {"x": "***"}
    assert metrics_of(returned(Table({"a": 1}))) == {"a": 1.0}


def test_data_sets_keep_their_marker() -> None:
    """`Dataset` on an optional parameter beside an unresolvable one names the input."""
    pytest.importorskip("xxhash")

    @stage
    def f(df: lib.Frame, data: Annotated[Any, Dataset("train")] | None = None) -> None: ...

    def inputs(value: Mapping[str, Any]) -> list[str]:
        return [found.name for found in recorded(f, 1, value).inputs]

    assert inputs({"a": [1, 2]}) == ["train"]
