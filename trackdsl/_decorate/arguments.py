"""The call plan of a function: made once, at decoration, from its signature.

`inspect.Signature.bind` takes several microseconds a call. The plan takes about one, as everything that does not depend
on the arguments is computed at decoration.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trackdsl import markers
from trackdsl._core.events import Scalar
from trackdsl._core.redaction import MASK, is_secret, is_secret_name, mask_items, mask_text
from trackdsl._core.redaction import _names as secret_names
from trackdsl._decorate.misuse import check_params_option, check_recorded_names
from trackdsl._decorate.signatures import POSITIONAL, Receiver, signature_of
from trackdsl._recording.flatten import Flat
from trackdsl.handlers._annotations import Annotations, annotations_of
from trackdsl.handlers._marked_fields import Fields, fields_of, hides, hiding_fields, kind_of_marker
from trackdsl.handlers._registry import load_entry_points

_GATHERING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
#: The name for the positional arguments of a call whose parameters are unknown.
_UNNAMED = "args"


#: The name of this class in pickles of earlier versions.
_Receiver = Receiver


class _Missing:
    """The value of an argument that was not given and has no default."""


_MISSING = _Missing()


class CallPlan:
    """How the arguments of one function become parameters.

    Args:
        fn: the function.
        params: `True` for all, `False` for none, or the names to record.
        decorator: the name of the decorator, for messages.

    Raises:
        OptionError: `params` has a name that is not a parameter, or two parameters would be recorded under one name.
    """

    def __init__(self, fn: Callable[..., Any], params: bool | Iterable[str] = True, decorator: str = "stage") -> None:
        self.name: str = getattr(fn, "__name__", type(fn).__name__)
        signature, self._indirect = signature_of(fn)
        parameters = list(signature.parameters.values())
        kinds = inspect.Parameter
        self._positional = tuple(p.name for p in parameters if p.kind in POSITIONAL)
        self._positional_only = {p.name for p in parameters if p.kind is kinds.POSITIONAL_ONLY}
        self._rest = next((p.name for p in parameters if p.kind is kinds.VAR_POSITIONAL), None)
        self._extra = next((p.name for p in parameters if p.kind is kinds.VAR_KEYWORD), None)
        self._template: dict[str, Any] = {
            p.name: _MISSING if p.default is kinds.empty else p.default for p in parameters if p.kind not in _GATHERING
        }
        self.names = tuple(p.name for p in parameters)
        self._receiver = Receiver.of(fn, self._positional)
        self._leading = self._receiver.name if self._receiver is not None and self._receiver.usual() else None
        self._dropped: set[str] = set()
        self._marked_secret: set[str] = set()
        self._marked_ignore: set[str] = set()
        self._renamed: dict[str, str] = {}
        self._typed: dict[str, Fields] = {}
        #: Parameters with a marker that is only for return values, and the reason.
        self._misplaced: list[tuple[str, str]] = []
        #: The parameters that are datasets, by name.
        self.datasets: dict[str, markers.Dataset] = {}
        self._fn: Callable[..., Any] | None = fn
        load_entry_points()
        self.records = params is not False
        self._selected = not isinstance(params, bool)
        self._select(params, decorator)
        self._prepare()
        recorded = {name: self._renamed.get(name, name) for name in self._template if name not in self._left_out}
        check_recorded_names(recorded, self._misplaced, self.name, decorator)
        if self._fn is not None or self._receiver is not None:
            # An annotation names a class that is defined later in the file. It exists at the first call.
            self._version = -1

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by parameter name, with defaults.

        If the arguments do not match the signature, it binds those that do.
        """
        bound = self._template.copy()
        bound.update(zip(self._positional, args, strict=False))
        if kwargs:
            if self._extra and not self._positional_only.isdisjoint(kwargs):
                kwargs = {f"{self._extra}.{k}" if k in self._positional_only else k: v for k, v in kwargs.items()}
            bound.update(kwargs)
        if self._rest is not None:
            for index, value in enumerate(mask_items(args[len(self._positional) :])):
                name = f"{self._rest}.{index}"
                while name in bound:  # A keyword may have any string as its name.
                    name += "#2"
                bound[name] = value
        return bound

    def params(self, out: dict[str, Scalar], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Flat | None:
        """Add the parameters that a call records to `out`: flat, masked, of plain types.

        Returns:
            what does not fit into `out`; None if all arguments are plain.
        """
        if self._version != secret_names.version:
            self._prepare(args)
        if self._indirect and not self._fits(args, kwargs):
            return self._misfit_params(out, args, kwargs)
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
        """The arguments that may be recorded in other forms: all except secrets and those marked `Ignore`."""
        self._prepare_late(args)
        hidden = self._marked_ignore | self._secret | set(self._typed)
        if self._indirect and not self._fits(args, kwargs):
            return {} if hidden else self._misfit(args, kwargs)
        bound = self.bind(args, kwargs)
        return {name: value for name, value in bound.items() if hidden.isdisjoint((name, *self._gatherers(name)))}

    def dataset_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[markers.Dataset, Any]]:
        """The arguments that are marked `Dataset`, each with its marker."""
        bound = self.bind(args, kwargs)
        return [(marker, bound[name]) for name, marker in self.datasets.items() if bound.get(name) is not None]

    def shown(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        """The arguments for a name template, with secrets masked."""
        self._prepare_late(args)
        if self._indirect and not self._fits(args, kwargs):
            return {name: MASK if self._hides(name, value) else value for name, value in kwargs.items()}
        bound = self.bind(args, kwargs)
        if self._rest is not None:
            bound[self._rest] = args[len(self._positional) :]
        return {
            name: MASK if self._hides(name, value) else self._concealed(name, value) for name, value in bound.items()
        }

    def _is_secret(self, name: str) -> bool:
        """Whether an argument has a secret name, or is marked as a secret."""
        return name in self._secret or (
            name not in self._template and (not self._secret.isdisjoint(self._gatherers(name)) or is_secret_name(name))
        )

    def _hides(self, name: str, value: Any) -> bool:
        """Whether the value of an argument is masked: a flag or number only if the parameter is marked as a secret."""
        harmless = name not in self._marked_secret and is_secret_name(name) and not is_secret(name, value)
        return self._is_secret(name) and (value is None or not harmless)

    def _gatherers(self, name: str) -> tuple[str, ...]:
        """The `*args` or `**kwargs` parameters that a bound name may come from; none for a parameter of its own."""
        if name in self._template:
            return ()
        rest = self._rest if self._rest is not None and name.startswith(f"{self._rest}.") else None
        return tuple(gatherer for gatherer in (rest, self._extra) if gatherer is not None)

    def _concealed(self, name: str, value: Any) -> Any:
        """The value of an argument, without the fields that its annotation, a `TypedDict`, marks as hidden."""
        if self._typed and not isinstance(value, _Missing):
            for parameter in (name, *self._gatherers(name)):
                if parameter in self._typed:
                    return self._typed[parameter].conceal(value)
        return value

    def _add_special(self, flat: Flat, name: str, value: Any) -> None:
        """Record an argument that is hidden, renamed, gathered by `*args` or `**kwargs`, or not recorded at all."""
        if isinstance(value, _Missing) or not self._left_out.isdisjoint((name, *self._gatherers(name)[:1])):
            return
        recorded = self._renamed.get(name, name)
        if self._hides(name, value):
            flat.hide(recorded, value)
        else:
            flat.add(recorded, self._concealed(name, value))

    def _fits(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the wrapped function takes these arguments. A wrapper around it may add or remove some."""
        if len(args) > len(self._positional) and self._rest is None:
            return False
        given = set(self._positional[: len(args)])
        if not given.isdisjoint(kwargs.keys() - self._positional_only):
            return False
        given.update(kwargs)
        if self._extra is None and not given.issubset(self._template):
            return False
        return all(not isinstance(value, _Missing) or name in given for name, value in self._template.items())

    def _misfit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call that does not fit the known parameters: positional ones as `args.0` and so on."""
        first = 0 if self._leading is None else 1
        return {**{f"{_UNNAMED}.{index}": value for index, value in enumerate(mask_items(args[first:]))}, **kwargs}

    def _misfit_params(self, out: dict[str, Scalar], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Flat:
        """Record such a call. Arguments that may belong to a hidden parameter are masked."""
        flat = Flat(out)
        for name, value in self._misfit(args, kwargs).items():
            if name in kwargs and name in self._template:
                self._add_special(flat, name, value)
            elif self._selected:
                continue
            elif name in kwargs and not self._is_secret(name):
                flat.add(name, value)
            elif self._secret or self._marked_ignore or self._typed:
                flat.hide(name, value)  # It may be one of the hidden arguments.
            else:
                flat.add(name, value)
        return flat

    def _select(self, params: bool | Iterable[str], decorator: str) -> None:
        """Drop the parameters that the option `params` does not name. Naming `self` records it."""
        if not isinstance(params, bool):
            kept = [params] if isinstance(params, str) else list(params)
            check_params_option(kept, self.names, self.name, decorator)
            self._dropped |= set(self.names) - set(kept)
            if self._receiver is not None and self._receiver.name in kept:
                self._receiver = self._leading = None

    def _read_markers(self, fn: Callable[..., Any]) -> None:
        annotations = annotations_of(fn)
        for name in self.names:
            annotation = annotations.get(name)
            # Reading an annotation a second time, with fewer names known, may give less: markers found before stay.
            hidden, ignored = hides(annotations, annotation)
            if hidden:
                self._marked_secret.add(name)
            if ignored:
                self._dropped.add(name)
                self._marked_ignore.add(name)
            typed = hiding_fields(annotations, annotation)
            if typed is not None:
                self._typed[name] = typed
            for marker in annotations.markers(annotation) or annotations.item_markers(annotation):
                self._add_marker(name, marker)
        if self._extra is not None:
            self._read_keywords(annotations)
        if not annotations.missing and not annotations.failed:
            self._fn = None

    def _add_marker(self, name: str, marker: Any) -> None:
        """Remember what a marker says about a parameter."""
        kind = kind_of_marker(marker)
        if kind in (markers.Metric, markers.Artifact, markers.Model):
            self._misplaced.append(
                (name, f"{kind.__name__}, which is a marker for return values. Mark the return annotation")
            )
        elif kind in (markers.Param, markers.Dataset) and name in (self._rest, self._extra):
            self._misplaced.append(
                (name, f"{kind.__name__}, but collects several arguments. Declare a separate parameter for that one")
            )
        elif marker is markers.Param:
            self._misplaced.append((name, "Param without a name. Write Param('other_name')"))
        elif kind is markers.Param:
            self._renamed[name] = marker.name
        elif kind is markers.Dataset:
            self.datasets[name] = markers.Dataset(name) if marker is kind else marker

    def _read_keywords(self, annotations: Annotations) -> None:
        """`**options: Unpack[Options]`, whose keywords are the fields of a `TypedDict`."""
        for kind in annotations.unpacked(annotations.get(self._extra or "")):
            fields = fields_of(kind)
            self._marked_secret |= fields.hidden
            self._marked_ignore |= fields.ignored
            self._dropped |= fields.ignored
            self._typed.update(fields.typed)

    def _prepare_late(self, args: tuple[Any, ...]) -> None:
        """Prepare again at a call, if annotations were unknown at decoration, or the secret names have changed."""
        if self._version != secret_names.version:
            self._prepare(args)

    def _prepare(self, args: tuple[Any, ...] | None = None) -> None:
        """Find the parameters that need more than a look at their type. Repeated when the secret names change."""
        if self._fn is not None:
            self._read_markers(self._fn)
        if self._receiver is not None and args is not None:
            self._leading = self._receiver.name if self._receiver.leads(args) else None
            self._receiver = None
        self._version = secret_names.version
        self._left_out: set[str] = self._dropped if self._leading is None else {*self._dropped, self._leading}
        self._secret = {name for name in self.names if is_secret_name(name)} | self._marked_secret
        if args is not None:  # At a call it is too late to raise for two parameters with one name.
            taken = self._template.keys() - self._left_out
            self._renamed = {name: new for name, new in self._renamed.items() if new not in taken - {name}}
        self._special = frozenset(self._left_out | self._secret | set(self._renamed) | set(self._typed))
