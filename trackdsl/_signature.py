"""The call plan of a function: compiled once, at decoration, from its signature.

`inspect.Signature.bind` takes several microseconds a call; the plan takes about one, because everything that does not
depend on the arguments has been worked out before.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trackdsl import _secrets, markers
from trackdsl._events import Scalar
from trackdsl._flatten import Flat
from trackdsl._secrets import MASK, is_secret_name, mask_text, remember
from trackdsl._suggest import suggestion_for
from trackdsl.errors import OptionError
from trackdsl.handlers._registry import load_entry_points

_RECEIVERS = ("self", "cls", "mcs")


class _Missing:
    """Stands for an argument that was not given and has no default."""


_MISSING = _Missing()


class CallPlan:
    """How the arguments of one function become parameters.

    Args:
        fn: the function.
        params: `True` for all, `False` for none, or the names to record.
        word: the decorator, for messages.

    Raises:
        OptionError: `params` names something that is no parameter.
    """

    def __init__(self, fn: Callable[..., Any], params: bool | Iterable[str] = True, word: str = "stage") -> None:
        self.name: str = getattr(fn, "__name__", type(fn).__name__)
        try:
            signature = inspect.signature(fn)
        except (TypeError, ValueError):  # Some functions written in C tell nothing.
            signature = inspect.Signature([inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)])
        parameters = list(signature.parameters.values())
        kinds = inspect.Parameter
        self._positional = tuple(
            p.name for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
        )
        self._positional_only = {p.name for p in parameters if p.kind is kinds.POSITIONAL_ONLY}
        self._rest = next((p.name for p in parameters if p.kind is kinds.VAR_POSITIONAL), None)
        self._extra = next((p.name for p in parameters if p.kind is kinds.VAR_KEYWORD), None)
        self._template: dict[str, Any] = {
            p.name: _MISSING if p.default is kinds.empty else p.default
            for p in parameters
            if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
        }
        self.names = tuple(p.name for p in parameters)
        self._dropped = {name for name in self._positional[:1] if name in _RECEIVERS}
        self._marked_secret: set[str] = set()
        self._marked_ignore: set[str] = set()
        self._renamed: dict[str, str] = {}
        #: Parameters that are datasets, by name.
        self.datasets: dict[str, markers.Dataset] = {}
        self._fn: Callable[..., Any] | None = fn
        load_entry_points()
        self.records = params is not False
        self._select(params, word)
        self._prepare()
        if self._fn is not None:
            self._version = -1  # An annotation names what is defined further down: tried once more at the first call.

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by parameter name, defaults applied; a call that the function will refuse binds what it can."""
        bound = self._template.copy()
        bound.update(zip(self._positional, args, strict=False))
        if kwargs:
            if self._extra and not self._positional_only.isdisjoint(kwargs):
                kwargs = {f"{self._extra}.{k}" if k in self._positional_only else k: v for k, v in kwargs.items()}
            bound.update(kwargs)
        if self._rest is not None:
            for index, value in enumerate(args[len(self._positional) :]):
                bound[f"{self._rest}.{index}"] = value
        return bound

    def params(self, out: dict[str, Scalar], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Flat | None:
        """Add the parameters that a call records to `out`: flat, masked, of plain types.

        Returns:
            what `out` could not hold; None where all arguments are plain.
        """
        if self._version != _secrets.version:
            self._prepare()
        flat: Flat | None = None
        special, template = self._special, self._template
        for name, value in self.bind(args, kwargs).items():
            if name in special or name not in template:
                flat = flat if flat is not None else Flat(out)
                self._add_special(flat, name, value)
                continue
            kind = type(value)
            if kind is float or kind is int or kind is bool or value is None:
                out[name] = value
            elif kind is str:
                out[name] = mask_text(value)
            elif kind is not _Missing:
                flat = flat if flat is not None else Flat(out)
                flat.add(name, value)
        return flat

    def open_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments whose content may be looked at: without secrets and those that are marked `Ignore`."""
        hidden = self._marked_ignore | self._secret
        bound = self.bind(args, kwargs)
        return {name: value for name, value in bound.items() if hidden.isdisjoint((name, self._gatherer(name)))}

    def dataset_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[markers.Dataset, Any]]:
        """The arguments that are marked `Dataset`, each with its marker."""
        bound = self.bind(args, kwargs)
        return [(marker, bound[name]) for name, marker in self.datasets.items() if bound.get(name) is not None]

    def shown(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        """Arguments for a name template: as bound, with secrets masked."""
        bound = self.bind(args, kwargs)
        if self._rest is not None:
            bound[self._rest] = args[len(self._positional) :]
        return {name: MASK if self._is_secret(name) else value for name, value in bound.items()}

    def _is_secret(self, name: str) -> bool:
        return name in self._secret or (
            name not in self._template and (self._gatherer(name) in self._secret or is_secret_name(name))
        )

    def _gatherer(self, name: str) -> str | None:
        """The `*args` or `**kwargs` that a bound name came in by; None for a parameter of its own."""
        if name in self._template:
            return None
        return self._rest if self._rest is not None and name.startswith(f"{self._rest}.") else self._extra

    def _add_special(self, flat: Flat, name: str, value: Any) -> None:
        if self._dropped.intersection((name, self._gatherer(name))) or value is _MISSING:
            return
        if self._is_secret(name):
            flat.values[self._renamed.get(name, name)] = None if value is None else remember(value)
        else:
            flat.add(self._renamed.get(name, name), value)

    def _select(self, params: bool | Iterable[str], word: str) -> None:
        if not isinstance(params, bool):
            kept = [params] if isinstance(params, str) else list(params)
            for name in kept:
                if name not in self.names:
                    hint = suggestion_for(name, self.names)
                    raise OptionError(
                        f"@{word}(params=...) names {name!r}, which is no parameter of {self.name}(){hint.text} "
                        f"It has: {', '.join(self.names) or 'none'}.",
                        option=name,
                        suggestion=hint.name,
                    )
            self._dropped |= set(self.names) - set(kept)

    def _read_markers(self, fn: Callable[..., Any]) -> None:
        hints = annotations_of(fn)
        if hints is None:
            return
        self._fn = None
        for name in self.names:
            for marker in markers_of(hints.get(name)):
                if isinstance(marker, markers.Param):
                    self._renamed[name] = marker.name
                elif marker in (markers.Secret, markers.Secret()):
                    self._marked_secret.add(name)
                elif marker in (markers.Ignore, markers.Ignore()):
                    self._dropped.add(name)
                    self._marked_ignore.add(name)
                elif isinstance(marker, markers.Dataset):
                    self.datasets[name] = marker

    def _prepare(self) -> None:
        """Work out which parameters need more than a look at their type; again when what is secret has changed."""
        if self._fn is not None:
            self._read_markers(self._fn)
        self._version = _secrets.version
        self._secret = {name for name in self.names if is_secret_name(name)} | self._marked_secret
        self._special = frozenset(self._dropped | self._secret | set(self._renamed))


def annotations_of(fn: Callable[..., Any]) -> dict[str, Any] | None:
    """The evaluated annotations of a function, with their markers; None where a name is not defined yet."""
    if not getattr(fn, "__annotations__", None):
        return {}
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except NameError:
        return None
    except Exception:  # Annotations are the user's: whatever they raise, the function still runs.
        return {}


def markers_of(annotation: Any) -> tuple[Any, ...]:
    """The extras of an `Annotated`, or nothing."""
    return getattr(annotation, "__metadata__", ())
