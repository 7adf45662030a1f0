"""Hooks into PyTorch while a watch is open: they see the calls of `backward` and the steps of optimizers.

The hooks are global, and the last watch removes them. Models and optimizers get no hooks of their own, so copying and
saving them works as before.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from trackdsl._core import runtime
from trackdsl._core.runtime import ForkSafeLock, Phase
from trackdsl._recording.emit import fault

#: A number; on an accelerator a tensor, because reading its number would wait for all work of the accelerator.
Value = Any
#: Whether `torch.compile` is tracing the code. The hooks do nothing then: they would cause a graph break, which is a
#: warning, or an error with `fullgraph=True`.
compiling = torch.compiler.is_dynamo_compiling
#: No loop has more scaled losses than this at the same time.
_MAX_SCALED = 16


class Watcher(Protocol):
    """Receives the steps of an optimizer."""

    def concerns(self, optimizer: Any) -> bool:
        """Whether it receives the steps of this optimizer."""

    def before_step(self, optimizer: Any) -> None:
        """Called before the optimizer uses the gradients."""

    def after_step(self, optimizer: Any, loss: Value) -> None:
        """Called after a step of the optimizer. `loss` is None if `backward` was not called."""


class _ThreadSteps(threading.local):
    """The losses and steps of one thread.

    Attributes:
        total: the sum of the losses that `backward` was called on since the last step.
        steps: the optimizers whose steps have begun, with the losses of `backward` calls in their closures.
        last: the loss of the last step, for other optimizers that use the same gradients.
        taken: the optimizers, by `id`, that have received this loss.
        scaled: losses that a gradient scaler has scaled, by `id`, with their original values.
        count: the number of steps so far.
    """

    def __init__(self) -> None:
        self.total: Value = None
        self.steps: list[tuple[int, list[Value]]] = []
        self.last: Value = None
        self.taken: set[int] = set()
        self.scaled: dict[int, tuple[weakref.ref[Any], Value]] = {}
        self.count = 0


_here = _ThreadSteps()
_lock = ForkSafeLock(threading.RLock)
_watchers: list[Watcher] = []
#: The watchers of each optimizer that has been seen, by its `id`.
_of: dict[int, tuple[weakref.ref[Any], tuple[Watcher, ...]]] = {}
_undo: list[Callable[[], None]] = []


def add(watcher: Watcher) -> None:
    """Send steps to a watcher from now on."""
    global _here
    with _lock.current:
        _of.clear()
        if not _undo:
            _here = _ThreadSteps()  # Forget what earlier watches have seen in any thread.
            _install()
        _watchers.append(watcher)


def remove(watcher: Watcher) -> None:
    """Send no more steps to a watcher; remove the hooks with the last one."""
    with _lock.current:
        if watcher in _watchers:
            _watchers.remove(watcher)
        _of.clear()
        while not _watchers and _undo:
            _undo.pop()()


def _reset() -> None:
    for watcher in _watchers:
        remove(watcher)


runtime.register("watched optimizers", Phase.SCOPES, reset=_reset)


def value_of(tensor: Any) -> Value:
    """The number of a tensor with one element; on an accelerator a detached copy of the tensor."""
    if tensor.device.type == "cpu":
        return tensor.item()
    return tensor.detach().clone()  # The next replay of a captured CUDA graph would overwrite it.


def _install() -> None:
    for register, hook in (
        (register_optimizer_step_pre_hook, _before_step),
        (register_optimizer_step_post_hook, _after_step),
    ):
        _undo.append(register(hook).remove)
    for owner, name, make in (
        (torch.autograd, "backward", _backward),
        (torch.amp.GradScaler, "scale", _scale),
        (torch.amp.GradScaler, "step", _scaler_step),
        (torch.optim.Optimizer, "zero_grad", _zero_grad),
    ):
        _patch(owner, name, make)


def _patch(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = vars(owner)[name]
    wrapper = functools.wraps(original)(make(original))
    setattr(owner, name, wrapper)

    def undo() -> None:
        # If another library has patched it since, its patch stays, and ours has no watcher to call.
        if vars(owner).get(name) is wrapper:
            setattr(owner, name, original)

    _undo.append(undo)


def _backward(original: Callable[..., Any]) -> Callable[..., Any]:
    def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> Any:
        if grad_tensors is None and _watchers and not compiling():
            if isinstance(tensors, Iterator):  # An iterator can be read only once.
                tensors = tuple(tensors)
            try:
                _add_loss((tensors,) if isinstance(tensors, torch.Tensor) else tensors)
            except Exception as error:  # Placeholder tensors, as in `torch.func.grad`, have no value.
                fault("watching a loss", error)
        return original(tensors, grad_tensors, *args, **kwargs)

    return backward


def _add_loss(tensors: Any) -> None:
    for tensor in tensors:
        # `backward` takes edges of graphs too.
        if not isinstance(tensor, torch.Tensor) or tensor.numel() != 1 or _is_captured(tensor):
            continue
        known = _here.scaled.get(id(tensor))
        value = known[1] if known is not None and known[0]() is tensor else value_of(tensor)
        if _here.steps:  # An optimizer's step calls this: the loss belongs to the step, also if the step raises later.
            _here.steps[-1][1].append(value)
        _here.total = _sum(_here.total, value)


def _is_captured(tensor: Any) -> bool:
    """Whether a CUDA graph is being captured, which would capture our copy too."""
    return tensor.device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _sum(total: Value, value: Value) -> Value:
    if total is None:
        return value
    if isinstance(total, torch.Tensor) and isinstance(value, torch.Tensor):
        value = value.to(total.device, non_blocking=True)
    return total + value


def _scale(original: Callable[..., Any]) -> Callable[..., Any]:
    def scale(self: Any, outputs: Any) -> Any:
        result = original(self, outputs)
        if (
            result is not outputs
            and _watchers
            and not compiling()
            and isinstance(result, torch.Tensor)
            and result.numel() == 1
        ):
            try:
                if len(_here.scaled) >= _MAX_SCALED:
                    _here.scaled.clear()
                _here.scaled[id(result)] = (weakref.ref(result), value_of(outputs))
            except Exception as error:
                fault("watching a loss", error)
        return result

    return scale


def _scaler_step(original: Callable[..., Any]) -> Callable[..., Any]:
    def step(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        before = 0 if compiling() else _here.count
        result = original(self, optimizer, *args, **kwargs)
        if not compiling() and _here.count == before:  # The gradients were not finite, so the scaler skipped the step.
            _here.total = None
        return result

    return step


def _zero_grad(original: Callable[..., Any]) -> Callable[..., Any]:
    def zero_grad(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A loss without a step is dropped, but not with several watchers: it may belong to another optimizer.
        if not compiling() and len(_watchers) == 1 and _here.total is not None and _watchers_of(self):
            _here.total = None
        return original(self, *args, **kwargs)

    return zero_grad


def _before_step(optimizer: Any, args: Any, kwargs: Any) -> None:
    if compiling():
        return
    try:
        # Remove entries of steps that have raised an exception.
        for number, (other, _) in enumerate(_here.steps):
            if other == id(optimizer):
                del _here.steps[number:]
                break
        if len(args) > 1 or kwargs:  # A closure, perhaps.
            _here.steps.append((id(optimizer), []))
        for watcher in _watchers_of(optimizer):
            watcher.before_step(optimizer)
    except Exception as error:
        fault("watching an optimizer", error)


def _after_step(optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG001 - as the hook is called
    if compiling():
        return
    try:
        _here.count += 1
        loss = _loss_of_step(optimizer)
        for watcher in _watchers_of(optimizer):
            watcher.after_step(optimizer, loss)
    except Exception as error:
        fault("watching an optimizer", error)


def _loss_of_step(optimizer: Any) -> Value:
    inside: list[Value] = []
    if _here.steps and _here.steps[-1][0] == id(optimizer):
        inside = _here.steps.pop()[1]
    if inside or _here.total is not None:
        # An optimizer may call a closure many times. The first loss belongs to the parameters before the step.
        _here.last = inside[0] if inside else _here.total
        _here.total = None
        _here.scaled.clear()
        _here.taken.clear()
    elif id(optimizer) in _here.taken:
        return None
    _here.taken.add(id(optimizer))
    return _here.last


def _watchers_of(optimizer: Any) -> tuple[Watcher, ...]:
    known = _of.get(id(optimizer))
    if known is None or known[0]() is not optimizer:
        key = id(optimizer)
        found = tuple(watcher for watcher in _watchers if watcher.concerns(optimizer))
        with _lock.current:
            known = _of[key] = (weakref.ref(optimizer, lambda ref: _forget(key, ref)), found)
    return known[1]


def _forget(key: int, ref: weakref.ref[Any]) -> None:
    known = _of.get(key)
    if known is not None and known[0] is ref:
        del _of[key]
