"""Decorated methods and objects behave as undecorated: classes of all kinds, properties, copies, weak references."""

from __future__ import annotations

import abc
import copy
import functools
import gc
import inspect
import pickle
import types
import weakref
from typing import Any

import pytest

from tests.transparency.decorators import Decorator, Weights, give


def classes_of(decorator: Decorator) -> tuple[Any, Any, Any]:  # noqa: C901 - methods of every kind
    """An abstract class, a class below it with decorated methods of every kind, and one below that."""

    class Base(abc.ABC):
        @abc.abstractmethod
        @decorator
        def predict(self, x: int) -> int:
            return x

        @property
        @abc.abstractmethod
        @decorator
        def name(self) -> str:
            return "base"

        @decorator
        def __enter__(self) -> Any:
            return self

        @decorator
        def __exit__(self, *_: object) -> None:
            self.left = True

    class Model(Base):
        kind = "model"

        @decorator
        def __init__(self, factor: int) -> None:
            super().__init__()
            self.factor = factor

        @decorator
        def predict(self, x: int) -> int:
            return super().predict(x) * self.factor

        @property
        @decorator
        def name(self) -> str:
            return f"{super().name}/{__class__.kind}"  # type: ignore[name-defined]

        @name.setter
        @decorator
        def name(self, value: str) -> None:
            self.renamed = value

        @functools.cached_property
        @decorator
        def size(self) -> object:
            return object()

        @classmethod
        @decorator
        def build(cls, factor: int = 2) -> Model:
            return cls(factor)

        @decorator
        @classmethod
        def built(cls) -> Model:
            return cls(3)

        @decorator
        @staticmethod
        def fixed(x: int) -> int:
            return x

        @decorator
        def __getitem__(self, key: Any) -> Any:
            return key

        @decorator
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Model) and other.factor == self.factor

        __hash__ = None  # type: ignore[assignment]

        twice = functools.partialmethod(predict, 2)

    class Smaller(Model):
        @decorator
        def predict(self, x: int) -> int:
            return super().predict(x) - 1

    return Base, Model, Smaller


def test_abstract_methods(decorator: Decorator) -> None:
    """A class with abstract methods cannot be instantiated, and says which ones they are."""
    base, model, _ = classes_of(decorator)
    for abstract in (base, type("Partly", (base,), {"predict": lambda self, x: x})):
        with pytest.raises(TypeError, match="abstract"):
            abstract()
    assert base.__abstractmethods__ == {"predict", "name"}
    assert not model.__abstractmethods__


def test_methods(decorator: Decorator) -> None:
    """Class and static methods, partial methods, `super()` and methods with special names work in every class."""
    _, model_class, smaller = classes_of(decorator)
    model = model_class.build()
    assert (model.predict(4), model.twice(), model.fixed(1), model_class.fixed(1)) == (8, 4, 1, 1)
    assert (model_class.built().factor, model[1:2], model == model_class(2)) == (3, slice(1, 2), True)
    with model as entered:
        assert entered is model
    assert model.left
    assert smaller(2).predict(4) == 7
    assert isinstance(smaller.build(), smaller)


def test_properties(decorator: Decorator) -> None:
    """Properties with setters and cached properties work, with `super()` and `__class__` inside."""
    model = classes_of(decorator)[1].build()
    assert model.name == "base/model"
    assert model.size is model.size
    model.name = "other"
    assert model.renamed == "other"


def test_bound_methods(decorator: Decorator) -> None:
    """A bound method has its object and its signature."""
    model = classes_of(decorator)[1].build()
    assert model.predict.__self__ is model
    assert inspect.ismethod(model.predict)
    assert inspect.signature(model.predict) == inspect.Signature(
        [inspect.Parameter("x", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="int")], return_annotation="int"
    )


def test_objects_that_are_called(decorator: Decorator) -> None:
    """Callable objects keep attributes, class, `repr`, equality, binding, copies and pickling."""
    weights = Weights()
    made = decorator(weights)
    assert made(1, 2) == (1, 2)
    assert (made.calls, isinstance(made, Weights), repr(made), made == weights) == (1, True, repr(weights), True)
    made.calls = 5
    assert weights.calls == 5
    made.reset()
    assert made.calls == 0
    partial: Any = decorator(functools.partial(give, 1))
    assert (partial.func, partial.args, partial(2), isinstance(partial, functools.partial)) == (
        give,
        (1,),
        (1, 2),
        True,
    )
    assert not hasattr(made, "__name__")

    class Model:
        scale = decorator(Weights())
        add = decorator(functools.partial(give, 1))
        size = decorator(len)

    assert (Model().scale(), Model().add(), Model().size([1])) == ((), (1,), 1)
    for fn in (made, partial):
        for same in (pickle.loads(pickle.dumps(fn)), copy.copy(fn), copy.deepcopy(fn)):
            assert same is not fn
            assert same(3)[-1] == 3
    assert inspect.signature(made) == inspect.signature(weights)


@pytest.mark.slow
def test_copies_and_weak_references(decorator: Decorator) -> None:
    """A function is its own copy; after it is dropped, nothing of it stays in memory."""

    @decorator
    def fn() -> int:
        return 1

    assert copy.copy(fn) is copy.deepcopy(fn) is fn
    reference = weakref.ref(fn)
    assert fn() == 1
    method = weakref.WeakMethod(Holder(decorator).method)
    gc.collect()
    assert method() is None
    del fn
    gc.collect()
    assert reference() is None


class Holder:
    """Has a decorated method of its own."""

    def __init__(self, decorator: Decorator) -> None:
        self.method = types.MethodType(decorator(give), self)
