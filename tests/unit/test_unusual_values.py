"""Unusual use: odd annotations, endless values, objects that raise, names that clash."""

from __future__ import annotations

import asyncio
import collections.abc
import dataclasses
import functools
import itertools
import pathlib
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Optional, TypedDict
from unittest import mock

import attrs
import numpy as np
import pydantic
import pytest

from trackdsl import Dataset, Ignore, Metric, Param, Secret, stage, track_returns
from trackdsl._recording.flatten import MAX_LEAVES, Flat
from trackdsl._recording.numbers import is_number
from trackdsl.errors import OptionError
from trackdsl.handlers._content import content_of
from trackdsl.handlers._line import MAX_LINE
from trackdsl.handlers._marked_fields import fields_of
from trackdsl.handlers._plain import is_plain
from trackdsl.handlers._types import is_mock
from trackdsl.testing import RecordedRun, capture_runs

if TYPE_CHECKING:
    import a_library_for_type_checkers as lib
    from a_library_for_type_checkers import Frame

PLANT = "PLANTED"
Key = Annotated[str, Secret]


def recorded(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> RecordedRun:
    """The only run of a call."""
    with capture_runs() as captured:
        fn(*args, **kwargs)
    (run,) = captured.runs
    return run


def params_of(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    return dict(recorded(fn, *args, **kwargs).params)


def returned(value: Any) -> RecordedRun:
    """The run of a function that returns a value."""

    @stage
    @track_returns
    def f() -> Any:
        return value

    return recorded(f)


def metrics_of(run: RecordedRun) -> dict[str, float]:
    return {name: found[0].value for name, found in run.metrics.items()}


def flattened(value: Any) -> Flat:
    flat = Flat()
    flat.add("x", value)
    return flat


# Markers.


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


# Values without end.


@dataclasses.dataclass
class Node:
    n: int
    near: list[Node] = dataclasses.field(default_factory=list)


def grid(size: int) -> Node:
    nodes = {(i, j): Node(i * size + j) for i in range(size) for j in range(size)}
    for (i, j), node in nodes.items():
        around = [(i, j + 1), (i + 1, j), (i, j - 1), (i - 1, j)]
        node.near += [nodes[at] for at in around if at in nodes]
    return nodes[0, 0]


def shared_lists() -> list[Any]:
    value: list[Any] = []
    for _ in range(40):
        value = [value, value]
    return value


def shared_lists_around_a_structure() -> list[Any]:
    value: list[Any] = [{"a": 1}]
    for _ in range(40):
        value = [value, value]
    return value


def shared_dicts() -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(30):
        value = {"x": value, "y": value}
    return value


def cyclic_list() -> list[Any]:
    value: list[Any] = []
    value += [value, value]
    return value


class Endless(collections.abc.Mapping):  # type: ignore[type-arg]
    def __getitem__(self, key: Any) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        return itertools.count()

    def __len__(self) -> int:
        return 1


ENDLESS: dict[str, Callable[[], Any]] = {
    "shared lists": shared_lists,
    "shared lists around a structure": shared_lists_around_a_structure,
    "shared dicts": shared_dicts,
    "cyclic list": cyclic_list,
    "grid": lambda: grid(6),
    "mapping": Endless,
}
#: More calls than these are a walk that does not end.
_MANY = 5_000_000


def counted(doing: Callable[[], Any]) -> int:
    """How many Python functions an action calls; it is stopped after far too many."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"
        if calls > _MANY:
            sys.setprofile(None)
            pytest.fail("it does not end")

    sys.setprofile(count)
    try:
        doing()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
def test_what_is_endless_is_described_in_part(name: str) -> None:
    """Shared and cyclic lists, graphs of objects, endless mappings: a bounded number of steps describes them."""
    value = ENDLESS[name]()
    flat = Flat()
    assert counted(lambda: flat.add("x", value)) < 500_000
    assert 1 <= len(flat.values) <= MAX_LEAVES + 1
    assert all(len(str(found)) <= MAX_LINE for found in flat.values.values())
    assert counted(lambda: content_of(value)) < _MANY
    assert counted(lambda: is_plain(value)) < _MANY


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
def test_what_is_endless_is_returned(name: str) -> None:
    """Endless values are described in part as return values too, and the numbers beside them are recorded."""
    value = ENDLESS[name]()

    @stage
    @track_returns
    def f() -> Any:
        return {"acc": 0.5, "rest": value}

    runs = []
    counted(lambda: runs.append(recorded(f)))
    assert metrics_of(runs[0])["acc"] == 0.5


def test_repeated_parts_are_cut_and_reported() -> None:
    """Where what is returned holds the same mapping over and over, a tag says that it was described in part."""
    run = returned({"acc": 0.5, **{key: shared_dicts() | {"n": 1} for key in "ab"}})
    assert metrics_of(run)["acc"] == 0.5
    assert "trackdsl.truncated.f" in run.tags


def test_parts_that_are_shared_a_few_times_are_described_each_time() -> None:
    """Shared parts are not a fault: each occurrence is recorded whole, as parameters, metrics and JSON."""
    part = {"a": 1, "b": [1, {"c": 2}]}
    value = {str(i): part for i in range(20)}
    assert len(flattened(value).values) == 60
    assert content_of(value) == value
    assert is_plain(value)
    assert len(metrics_of(returned({str(i): {"a": 1.0, "b": 2} for i in range(20)}))) == 40


def test_a_line_is_no_longer_than_a_parameter_may_be() -> None:
    """A list of long texts is cut where MLflow would refuse it, and kept whole; secrets are masked before the cut."""
    secret = "https://user:" + PLANT + "@host/" + "x" * 50
    texts = ["a" * 1000] * 5 + [secret] + ["b" * 100_000] * 60
    flat = flattened(texts)
    line = flat.values["x"]
    assert isinstance(line, str)
    assert len(line) <= MAX_LINE
    assert line.endswith("… [list of 66]")
    assert PLANT not in line
    assert flat.whole == {"x": texts}


def test_a_picture_of_nested_lists_is_data() -> None:
    """Lists in lists of many numbers are described by their beginning, in few steps, and not written out."""
    picture = [[[[1.5, 2.5, 3.5] for _ in range(96)] for _ in range(96)] for _ in range(16)]
    flat = Flat()
    assert counted(lambda: flat.add("x", picture)) < 50_000
    assert len(str(flat.values["x"])) <= MAX_LINE
    assert not flat.whole


def test_a_structure_behind_many_lists_is_kept_whole() -> None:
    """Where the lists of one value are too many to be looked into, the whole is kept as a file."""
    lists = [[[float(i)] * 90 for i in range(90)] for _ in range(12)]
    flat = flattened({str(i): part for i, part in enumerate(lists)} | {"z": [[{"a": 1}]]})
    assert set(flat.whole) == {"x"}


# Values that raise.


class RaisingShape:
    @property
    def shape(self) -> Any:
        raise RuntimeError("shape")


class RaisingMapping(collections.abc.Mapping):  # type: ignore[type-arg]
    def __getitem__(self, key: Any) -> Any:
        raise RuntimeError("item")

    def __iter__(self) -> Iterator[Any]:
        return iter("ab")

    def __len__(self) -> int:
        return 2


class RaisingClass:
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("class")


class RaisingAttributes:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("attribute")


class RaisingKey:
    def __str__(self) -> str:
        raise RuntimeError("key")


BAD: dict[str, Callable[[], Any]] = {
    "shape": RaisingShape,
    "mapping": RaisingMapping,
    "class": RaisingClass,
    "attributes": RaisingAttributes,
    "long path": lambda: pathlib.Path("x" * 5000),
    "key": lambda: {RaisingKey(): 1},
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_part_does_not_lose_the_others(name: str) -> None:
    """Whatever one part of a return value does, the numbers beside it are recorded, in dicts and in tuples."""
    bad = BAD[name]()
    assert {"acc": 0.9, "z": 1.0}.items() <= metrics_of(returned({"acc": 0.9, "x": bad, "z": 1.0})).items()
    assert {"f.0": 0.9, "f.2": 1.0}.items() <= metrics_of(returned((0.9, bad, 1.0))).items()


def test_a_part_that_cannot_be_kept_is_reported() -> None:
    """A part that is neither a number nor a file leaves a tag with its name."""
    tags = returned({"acc": 0.9, "x": RaisingClass()}).tags
    assert any(name.startswith("trackdsl.omitted.x") for name in tags)


class Lazy:
    touched: ClassVar[list[str]] = []

    @property
    def shape(self) -> Any:
        self.touched.append("shape")
        return ()

    def __getattr__(self, name: str) -> Any:
        self.touched.append(name)
        raise AttributeError(name)


def test_properties_of_unknown_types_are_not_called() -> None:
    """Properties of unknown types, such as lazy data sets, are not called, in arguments and return values."""
    flattened(Lazy())
    flattened([Lazy(), {"a": Lazy()}])
    assert not is_number(Lazy())
    assert Lazy.touched == []


@pytest.mark.parametrize("value", [np.float32(2), np.int64(2), np.bool_(True), np.array(2.0)])
def test_scalars_of_libraries_are_numbers(value: Any) -> None:
    """Scalars are recognized by the types of arrays that they offer."""
    assert is_number(value)
    assert not is_number(np.zeros(2))
    assert not is_number(np.datetime64("2026-01-01"))


def test_scalar_tensors_are_numbers() -> None:
    """PyTorch's tensors of no dimension are numbers, others are not."""
    torch = pytest.importorskip("torch")
    assert is_number(torch.tensor(2.0, requires_grad=True))
    assert not is_number(torch.zeros(2))


def test_mocks_are_no_numbers() -> None:
    """A mock, which converts to 1.0, is recorded as an object and not as a number."""
    assert metrics_of(returned({"acc": 0.9, "m": mock.MagicMock()})) == {"acc": 0.9}
    assert not is_number(mock.MagicMock())
    assert not is_number(mock.Mock(spec=float))
    assert is_mock(type(mock.MagicMock()))
    assert not is_mock(type(Lazy()))


def test_a_dict_that_changes_meanwhile() -> None:
    """If another thread changes a dict while it is read, the rest of it is recorded."""
    shared: dict[str, int] = {f"k{i}": i for i in range(500)}
    stop = threading.Event()

    def change() -> None:
        for count in itertools.count():
            shared[f"n{count % 50}"] = count
            shared.pop(f"n{(count + 25) % 50}", None)
            if stop.is_set():
                return

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=change)
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        flats = [flattened(shared) for _ in range(300)]
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert all({f"x.k{i}" for i in range(500)} <= flat.values.keys() and not flat.omitted for flat in flats)


def test_a_value_that_raises_is_described_with_the_reason() -> None:
    """Where only the class of an argument can be described, the reason is kept beside it."""
    flat = flattened({"a": 1, "m": RaisingMapping()})
    assert flat.values == {"x.a": 1, "x.m": f"{__name__}.RaisingMapping"}
    assert "item" in flat.omitted["x.m"]
    assert flat


# Names that clash.


def test_two_parameters_of_one_name_are_refused() -> None:
    """`Param` must not let one parameter replace another: decoration names the two."""
    with pytest.raises(OptionError, match=r"'a' and 'b' of f\(\)"):

        @stage
        def f(a: Annotated[int, Param("x")], b: Annotated[int, Param("x")]) -> None: ...

    with pytest.raises(OptionError, match=r"'a' and 'b' of g\(\)"):

        @stage
        def g(a: Annotated[int, Param("b")], b: int) -> None: ...

    @stage
    def swapped(a: Annotated[int, Param("b")], b: Annotated[int, Param("a")]) -> None: ...

    @stage(params=["a"])
    def chosen(a: Annotated[int, Param("b")], b: int) -> None: ...

    assert params_of(swapped, 1, 2) == {"b": 1, "a": 2}
    assert params_of(chosen, 1, 2) == {"b": 1}


def test_keywords_that_read_like_positions() -> None:
    """`**{"args.0": …}` beside `*args` records both, and hides them where either is to be hidden."""

    @stage
    def f(*args: Any, **options: Any) -> None: ...

    @stage
    def hidden(*args: Any, **options: Annotated[Any, Secret]) -> None: ...

    assert params_of(f, 1, 2, **{"args.0": 9}) == {"args.0": 9, "args.0#2": 1, "args.1": 2}
    assert PLANT not in str(params_of(hidden, **{"args.0": PLANT}))


def test_flat_names_that_meet() -> None:
    """A name that was recorded already, as the leaf of another value, is not written over."""

    @stage
    def f(a: Any, **options: Any) -> None: ...

    assert params_of(f, {"b": 1}, **{"a.b": 2}) == {"a.b": 1, "a.b#2": 2}
    assert metrics_of(returned({"a/b": 1.0, "a": {"b": 2.0}, "c/d": 3})) == {"a/b": 1.0, "a/b#2": 2.0, "c/d": 3.0}


# Receivers and wrappers.


class Methods:
    @stage
    def odd(this, x: int) -> None: ...  # noqa: N805

    @classmethod
    @stage
    def inside(klass, x: int) -> None: ...  # noqa: N804

    @stage
    @classmethod
    def outside(klass, x: int) -> None: ...  # noqa: N804

    @staticmethod
    @stage
    def static_inside(a: Any, x: int) -> None: ...

    @stage
    @staticmethod
    def static_outside(self: Any, x: int) -> None: ...

    @stage
    def __new__(klass, *args: Any) -> Methods:
        return super().__new__(klass)

    @stage
    def usual(self, x: int) -> None: ...


def test_receivers_are_left_out_whatever_they_are_called() -> None:
    """The receiver of a method is left out; a static method and a plain function have none."""
    with capture_runs():
        methods = Methods()
    for call in (methods.odd, Methods.inside, Methods.outside, methods.usual):
        assert params_of(call, 1) == {"x": 1}
        assert params_of(call, 2) == {"x": 2}
    assert params_of(functools.partial(Methods.odd, methods), 1) == {"x": 1}
    assert params_of(Methods, 5) == {"args.0": 5}
    for static in (Methods.static_inside, Methods.static_outside):
        first = "a" if static is Methods.static_inside else "self"
        assert params_of(static, 3, 1) == {first: 3, "x": 1}
        assert params_of(static, methods, 1) == {first: f"{__name__}.Methods", "x": 1}


def test_a_plain_function_keeps_its_first_parameter() -> None:
    """In a function of no class, `cls` may be an ordinary argument."""

    @stage
    def train(cls: str, x: int) -> None: ...

    class Local:
        @stage
        def method(this, x: int) -> None: ...  # noqa: N805

        @staticmethod
        @stage
        def static(a: int, x: int) -> None: ...

        def bound(self, x: int) -> None: ...

    assert params_of(train, "LogReg", 1) == {"cls": "LogReg", "x": 1}
    assert params_of(Local().method, 1) == {"x": 1}
    assert params_of(Local.static, 2, 1) == {"a": 2, "x": 1}
    assert params_of(stage(Local().bound), 7) == {"x": 7}


def injecting(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn("session", *args, **kwargs)

    return inner


def test_arguments_that_a_wrapper_adds() -> None:
    """Arguments that do not match the wrapped function are recorded without names, and likely secrets are masked."""

    @stage
    @injecting
    def f(session: str, x: int, lr: float = 0.1) -> None: ...

    @stage
    @injecting
    def secret(session: str, key: Annotated[str, Secret]) -> None: ...

    @stage(params=["x"])
    @injecting
    def chosen(session: str, x: int) -> None: ...

    assert params_of(f, 5) == {"args.0": 5}
    assert params_of(f, x=5) == {"x": 5}
    assert params_of(secret, PLANT) == {"args.0": "***"}
    assert params_of(secret, key=PLANT) == {"key": "***"}
    assert params_of(chosen, 5) == {}


def test_a_wrapper_is_called_by_its_own_signature() -> None:
    """A wrapper with parameters of its own is bound by those; one that passes all on, by the function's."""

    def named(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def inner(x: int, lr: float = 0.5) -> Any:
            return fn("session", x, lr)

        return inner

    def leading(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def inner(session: str, *args: Any, **kwargs: Any) -> Any:
            return fn(session, *args, **kwargs)

        return inner

    def fn(session: str, x: int, lr: float = 0.1) -> None: ...

    def passing(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

        return inner

    assert params_of(stage(named(fn)), 5) == {"x": 5, "lr": 0.5}
    assert params_of(stage(leading(fn)), "s", 5) == {"session": "s", "x": 5, "lr": 0.1}
    assert params_of(stage(passing(fn)), "s", x=5) == {"session": "s", "x": 5, "lr": 0.1}
    assert params_of(stage(functools.lru_cache(fn)), "s", 5) == {"session": "s", "x": 5, "lr": 0.1}


# Structures.


def test_a_field_that_was_never_set() -> None:
    """A field that was never set is described as unreadable, with the reason, and harms no other."""

    @dataclasses.dataclass
    class Half:
        a: int
        b: int = dataclasses.field(init=False)

    assert flattened(Half(1)).values == {"x.a": 1, "x.b": "<unreadable: AttributeError>"}
    run = returned(Half(1))
    assert metrics_of(run) == {"a": 1.0}
    assert list(run.artifacts) == ["f.json"]


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


def test_coroutines_are_bound_alike() -> None:
    """A wrapper around a coroutine function is bound in the same way."""

    @stage
    async def f(df: lib.Frame, key: Annotated[str, Secret]) -> None: ...

    def call(*args: Any) -> None:
        asyncio.run(f(*args))

    assert params_of(call, 1, PLANT) == {"df": 1, "key": "***"}


def test_data_sets_keep_their_marker() -> None:
    """`Dataset` on an optional parameter beside an unresolvable one names the input."""
    pytest.importorskip("xxhash")

    @stage
    def f(df: lib.Frame, data: Annotated[Any, Dataset("train")] | None = None) -> None: ...

    def inputs(value: Mapping[str, Any]) -> list[str]:
        return [found.name for found in recorded(f, 1, value).inputs]

    assert inputs({"a": [1, 2]}) == ["train"]


def test_a_mock_is_no_metric() -> None:
    """A mock that replaces a number in a test is reported as an omission, not recorded as 1.0."""
    with capture_runs() as captured, stage("f") as run:
        run.log_metric("m", mock.MagicMock())
    assert captured.one("f").metrics == {}
    assert "mock" in captured.one("f").tags["trackdsl.omitted.m"]
