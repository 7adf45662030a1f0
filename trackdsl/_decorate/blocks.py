"""`with` blocks: how they begin and end a run or a section."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR
from typing import Any

from trackdsl._core import context as _context
from trackdsl._core.context import Scope
from trackdsl._core.redaction import mask_name
from trackdsl._core.suppression import suppression
from trackdsl._decorate import name_templates
from trackdsl._decorate import parentage as _parentage
from trackdsl._decorate.options import Options
from trackdsl._decorate.scopes import close_scope, open_scope, open_section, tag_closed_early, under
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.emit import append_params, guarded
from trackdsl._recording.flatten import Flat
from trackdsl.errors import TemplateError, log_once
from trackdsl.errors._user_code import call_site


def enter_block(options: Options, extra: Mapping[str, Any], owner: object) -> Scope | None:
    """Begin the run or section of a `with` block. Returns None if nothing is recorded."""
    if suppression.on and suppression.here():
        return None
    with guarded("entering a block"):
        flat = Flat()
        for key, value in extra.items():
            flat.add(key, value)
        params = flat.values
        is_stage = options.decorator == "stage"
        name = mask_name((options.name if is_stage else options.run_name or options.name) or options.decorator)
        # The name of a block is a template only if its placeholders fit, as braces may be plain text.
        if "{" in name:
            name = _filled(name, extra, params)
        outer = _context.current()
        enclosing = outer.run if outer is not None else _parentage.run_around()
        if is_stage and not options.nested and enclosing is not None:
            scope = open_section(enclosing, outer, name, owner)
            if scope.index == 0:
                append_params(scope.run, under(name, params))
        else:
            experiment = None if is_stage or options.name is None else mask_name(options.name)
            scope = open_scope(options, name, experiment, params, options.static_tags(), None, owner)
        if flat:
            with guarded("recording parameters", scope.run):
                _artifacts.keep_whole(scope.run, flat, f"{name}." if scope.section is not None else "")
        return scope
    return None


def leave_block(owner: object, opened: list[Scope], error: BaseException | None) -> None:
    """End the run or section that `enter_block` began last for this owner, preferably one of the current context."""
    scope = _context.find(owner)
    if scope is None and opened:
        scope = opened[-1]
    if scope is not None:
        with contextlib.suppress(ValueError):  # Another thread has just left it.
            opened.remove(scope)
        if isinstance(error, GeneratorExit) and _in_generator(error):
            tag_closed_early(scope)
            error = None
        close_scope(scope, error)


def _in_generator(error: GeneratorExit) -> bool:
    """Whether the block is in a generator that its caller has closed, rather than in an abandoned coroutine."""
    trace = error.__traceback__
    return trace is not None and bool(trace.tb_frame.f_code.co_flags & (CO_GENERATOR | CO_ASYNC_GENERATOR))


def _filled(name: str, extra: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """The name of a block with its keywords filled in, or unchanged if it is plain text with braces."""
    try:
        missing = [each for each in name_templates.placeholders(name) if each not in extra]
    except TemplateError:
        return name
    if not missing:
        return name_templates.fill(name, {**extra, **{key: params[key] for key in extra if key in params}})
    if all(each.isidentifier() for each in missing):
        log_once(
            f"trackdsl: the name {name!r} at {call_site()} is used as it is, because the block has no parameter "
            f"{missing[0]!r}: add {missing[0]}=..., or write f{name!r}.",
            key=f"block-name:{name}",
        )
    return name
