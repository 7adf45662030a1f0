"""Records the steps of a PyTorch training loop; see `trackdsl.watch`."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from types import TracebackType
from typing import Any

from trackdsl._core import context as _context
from trackdsl._core.events import Metrics
from trackdsl._core.redaction import mask_name
from trackdsl._core.runtime import ForkSafeLock
from trackdsl._decorate import parentage as _roots
from trackdsl._recording.emit import guarded
from trackdsl._runs import ending as _ending
from trackdsl._runs.run import AdoptedRun, Run
from trackdsl.errors import OptionError, logger
from trackdsl.errors._packages import explained

try:
    import torch

    from trackdsl.integrations import _torch_hooks
    from trackdsl.integrations._torch_description import architecture_of, described, inner_of
except ModuleNotFoundError as error:
    raise explained(error, __name__) from None

#: Values on an accelerator are read together: after this many steps, or after this many nanoseconds.
_MAX_HELD = 100
_MAX_AGE = 2_000_000_000


def begin(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer | None, name: str | None, every: int, gradients: bool
) -> Watch:
    """See `trackdsl.watch`."""
    _check(model, optimizer, every)
    scope = _context.current()
    run = scope.run if scope is not None else _roots.run_outside("watch")
    watching = Watch(run, model, optimizer, name, every, gradients)
    if run is not None:
        watching._begin(model, optimizer)
    return watching


def _check(model: Any, optimizer: Any, every: Any) -> None:
    if not isinstance(model, torch.nn.Module):
        raise OptionError(f"watch() takes a torch.nn.Module first, not {type(model).__name__}.", option="model")
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        message = f"watch(model, optimizer) takes a torch.optim.Optimizer, not {type(optimizer).__name__}."
        raise OptionError(message, option="optimizer")
    if not isinstance(every, int) or every < 1:
        raise OptionError(f"watch(every=...) takes a number of steps from 1 on, not {every!r}.", option="every")


class Watch:
    """Records the training of one model; see `trackdsl.watch`."""

    def __init__(
        self,
        run: Run | None,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None,
        name: str | None,
        every: int,
        gradients: bool,
    ) -> None:
        self._run = run
        self._model = weakref.ref(model)
        self._optimizer = None if optimizer is None else weakref.ref(optimizer)
        self._every = every
        self._gradients = gradients
        self._name = None if name is None else mask_name(str(name))
        self._seen: dict[int, _Stepping] = {}
        self._held: list[tuple[int, int, dict[str, Any]]] = []
        self._lock = ForkSafeLock(threading.RLock)
        self._thread = threading.get_ident()
        self._counted = False
        self._closed = run is None

    def _begin(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
        run = self._run
        assert run is not None
        with guarded("watch", run):
            if self._name is None and run.next_index("\0watch"):
                number = run.next_index(f"\0watch {type(inner_of(model)).__name__}")
                self._name = f"{type(inner_of(model)).__name__}{number + 1 if number else ''}"
            run.log_param(self._named("model.class", "."), type(inner_of(model)).__name__)
            run.log_text(architecture_of(inner_of(model)), f"{self._name or 'model'}/architecture.txt")
            self._count(model)
            if optimizer is not None:
                self._stepping(optimizer)
            # Last, so that a watch that could not begin records nothing.
            _ending.call_before_end(run, self.close)
            _torch_hooks.add(self)

    def close(self) -> None:
        """End the watch, and record the values that are not read yet."""
        with self._lock.current:
            was_closed, self._closed = self._closed, True
            _torch_hooks.remove(self)
            if not was_closed:
                self._write_held()
        run = self._run
        if run is not None and not was_closed:
            calls = _ending.before_end.get(run.key)
            if calls is not None and self.close in calls:
                calls.remove(self.close)
                if not calls:
                    _ending.before_end.pop(run.key, None)
            if not any(stepping.done for stepping in self._seen.values()):
                logger.warning("trackdsl: %r watched a model, but no optimizer step was made with it.", run.path)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def concerns(self, optimizer: Any) -> bool:
        """See `Watcher`."""
        if self._optimizer is not None:
            return self._optimizer() is optimizer
        model = self._model()
        if model is None:
            return False
        own = {id(parameter) for parameter in model.parameters()}
        return any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"])

    def before_step(self, optimizer: Any) -> None:
        """See `Watcher`."""
        if self._gradients and self._seen.get(id(optimizer), _NEVER).next_is_recorded(self._every):
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            self._stepping(optimizer).norm = _norm(gradients)

    def after_step(self, optimizer: Any, loss: Any) -> None:
        """See `Watcher`."""
        if self._closed or self._has_ended():
            return
        now = time.time_ns()
        stepping = self._stepping(optimizer)
        step = next(stepping.steps)
        stepping.done = step + 1
        if step % self._every:
            return
        values: dict[str, Any] = {} if loss is None else {stepping.named("loss"): loss}
        groups = optimizer.param_groups
        for number, group in enumerate(groups):
            if "lr" in group:
                values[stepping.lr_name(number, group, len(groups))] = group["lr"]
        if stepping.norm is not None:
            values[stepping.named("gradient_norm")], stepping.norm = stepping.norm, None
        self._record(values, step, now)

    def _has_ended(self) -> bool:
        """Whether plain MLflow has ended the run, which sends no notice."""
        if not isinstance(self._run, AdoptedRun) or threading.get_ident() != self._thread:
            return False
        if _context.current() is not None or _roots.run_of_mlflow() is not None:
            return False
        self.close()
        return True

    def _record(self, values: dict[str, Any], step: int, now: int) -> None:
        run = self._run
        assert run is not None
        tensors = False
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                values[name] = _torch_hooks.value_of(value)
                tensors = tensors or isinstance(values[name], torch.Tensor)
        if not tensors:
            run.log_metrics(values, step)
            return
        with self._lock.current:
            self._held.append((step, now, values))
            if len(self._held) >= _MAX_HELD or now - self._held[0][1] > _MAX_AGE:
                self._write_held()

    def _write_held(self) -> None:
        """Read the values on an accelerator, all at once, and record them with the times of their steps."""
        held, self._held = self._held, []
        run = self._run
        if not held or run is None:
            return
        with guarded("watch", run):
            tensors = [value for _, _, values in held for value in values.values() if isinstance(value, torch.Tensor)]
            numbers = iter(_numbers(tensors))
            for step, now, values in held:
                read = {name: next(numbers) if isinstance(v, torch.Tensor) else v for name, v in values.items()}
                run.emit(Metrics(run.key, read, step, now))

    def _stepping(self, optimizer: Any) -> _Stepping:
        stepping = self._seen.get(id(optimizer))
        if stepping is not None and stepping.optimizer() is optimizer:
            return stepping
        with self._lock.current:
            model = self._model()
            if model is not None:
                self._count(model)
            number = len(self._seen)
            part = "optimizer" if not number else f"optimizer{number + 1}"
            prefix = self._named("" if not number else f"{part}/", "/")
            stepping = _Stepping(weakref.ref(optimizer), prefix)
            self._seen[id(optimizer)] = stepping
        assert self._run is not None
        self._run.log_params({self._named(f"{part}.{key}", "."): value for key, value in described(optimizer)})
        return stepping

    def _count(self, model: torch.nn.Module) -> None:
        """Record the numbers of parameters. Lazy parameters are created in the first call of the model."""
        parameters = list(model.parameters())
        if self._counted or any(map(torch.nn.parameter.is_lazy, parameters)):
            return
        self._counted = True
        assert self._run is not None
        counts = {
            "parameters": sum(parameter.numel() for parameter in parameters),
            "trainable_parameters": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        }
        self._run.log_params({self._named(f"model.{key}", "."): count for key, count in counts.items()})

    def _named(self, name: str, sign: str) -> str:
        return name if self._name is None else f"{self._name}{sign}{name}"


class _Stepping:
    """The steps of one optimizer.

    Args:
        optimizer: a weak reference to it.
        prefix: the prefix of the names of its metrics.

    Attributes:
        done: the number of steps so far.
        norm: the norm of the gradients of the present step.
    """

    def __init__(self, optimizer: Any, prefix: str) -> None:
        self.optimizer = optimizer
        self.steps = itertools.count()
        self.done = 0
        self.norm: Any = None
        self._prefix = prefix
        self._names: dict[str, str] = {}

    def next_is_recorded(self, every: int) -> bool:
        return self.done % every == 0

    def named(self, name: str) -> str:
        found = self._names.get(name)
        if found is None:
            found = self._names[name] = self._prefix + name
        return found

    def lr_name(self, number: int, group: dict[str, Any], count: int) -> str:
        return self.named("lr" if count == 1 else f"lr/{group.get('name', number)}")


_NEVER = _Stepping(None, "")


def _numbers(tensors: list[Any]) -> list[float]:
    if not tensors:
        return []
    device = tensors[0].device
    gathered = torch.stack([tensor.reshape(()).to(device, torch.float64, non_blocking=True) for tensor in tensors])
    found: list[float] = gathered.tolist()
    return found


def _norm(gradients: list[Any]) -> Any:
    if not gradients:
        return None
    with torch.no_grad():
        found = [g.coalesce().values() if g.is_sparse else g for g in gradients]
        norms = [torch.linalg.vector_norm(gradient.detach(), dtype=torch.float32) for gradient in found]
        return torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))
