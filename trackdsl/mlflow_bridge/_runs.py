"""The run of a scope, as plain MLflow sees it."""

from __future__ import annotations

import copy
import threading
from typing import Any

import mlflow
from mlflow.entities import RunInfo

from trackdsl._config import resolve as settings
from trackdsl._core import runtime
from trackdsl._core.redaction import mask_prose, mask_text
from trackdsl._core.runtime import Phase
from trackdsl._recording.emit import append_tags
from trackdsl._runs.run import AdoptedRun, Run
from trackdsl.errors import RunNotReady, format_error, report, reraise_from_signal
from trackdsl.mlflow_bridge._params import watch_params
from trackdsl.mlflow_bridge._wait_for_run import Ids, is_unavailable, same_store, wait_for


class _ThreadState(threading.local):
    #: The latest run of a scope that plain MLflow received in this thread.
    last: ScopeRun | None = None


_here = _ThreadState()


def _reset() -> None:
    _here.last = None


runtime.register("the latest run that MLflow received", Phase.RUNS, reset=_reset)


def last_given() -> Any:
    """The latest run of a scope that plain MLflow received in this thread, read from the store; None without one."""
    last = _here.last
    return None if last is None else mlflow.MlflowClient(last.run.target.uri).get_run(last.info.run_id)


class ScopeRun(mlflow.ActiveRun):
    """The run of a scope, as MLflow sees it. Its attributes wait until the run exists. MLflow cannot end it.

    Args:
        run: the run.

    Attributes:
        run: the run.
        unmatched_ends: how often in a row `end_run` had nothing to end.
        ended: whether the program has ended it, which is possible for a run of plain MLflow.
        chosen: the id of the experiment that the program has set inside the scope.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.unmatched_ends = 0
        self.ended = False
        self.chosen: str | None = None
        self._ids: Ids | None = None
        self._absent = False
        self._reported: set[str] = set()
        self._fetched: Any = None
        # MLflow stores the models that it logs here.
        self._inputs = self._outputs = None

    @property
    def info(self) -> Any:
        if self.resolve():
            assert self._ids is not None
            return _Info(self, *self._ids)
        # The run is not available, so MLflow does what it does without a scope.
        return (mlflow.active_run() or mlflow.start_run()).info

    @property
    def data(self) -> Any:
        return self.fetched().data

    @property
    def inputs(self) -> Any:
        return self._inputs

    @property
    def outputs(self) -> Any:
        return self._outputs

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> bool:
        return exc_type is None

    def __reduce__(self) -> tuple[Any, ...]:
        return mlflow.ActiveRun, (self.fetched(),)

    def fetched(self) -> Any:
        """The run from the store, as it was when this was first called."""
        if self._fetched is None:
            self._fetched = mlflow.MlflowClient().get_run(self.info.run_id)
        return self._fetched

    def uri(self) -> str | None:
        """The tracking URI of the run; None if MLflow cannot get the run."""
        target = self.run.target
        return None if target.discards or self._reason() is not None else target.uri

    def is_at(self, uri: str) -> bool:
        """Whether a tracking URI leads to the store of the run."""
        return same_store(uri, self.run.target.uri, self.run.target.cwd)

    def is_usable(self) -> bool:
        """Whether plain MLflow can use this run. If not, this is reported, and MLflow works as without a scope."""
        if self.run.target.discards:
            return True
        if not self.is_available():
            return False
        here, target = mlflow.get_tracking_uri(), self.run.target
        if self.is_at(here):
            return True
        self._report(
            "elsewhere",
            f"MLflow points at {mask_text(here)}, and the run is recorded at {mask_text(target.uri)}",
            "Call mlflow.set_tracking_uri before the run begins, and give trackdsl no other tracking URI.",
        )
        return False

    def is_available(self) -> bool:
        """Whether MLflow can get the run at all. If not, this is reported."""
        reason = self._reason()
        if reason is not None and self.run.target.delivers:
            self._report(*reason)
        return reason is None

    def resolve(self) -> bool:
        """Wait until the run exists in MLflow. Returns False if it does not in time."""
        if self._ids is None and self.run.target.discards:
            from trackdsl.mlflow_bridge._discarded import ids_of  # It imports SQLAlchemy.

            self._ids = ids_of(self.run)
        if self._ids is None and not self._absent:
            try:
                self._ids = wait_for(self.run)
                if not isinstance(self.run, AdoptedRun):
                    watch_params(self._ids.run_id, self.run)
                    _here.last = self
            except Exception as error:
                self._absent = True
                reraise_from_signal(error)
                reason = error.reason if isinstance(error, RunNotReady) and error.reason else format_error(error)
                self._report("away", reason.partition("\n")[0], _STATUS)
        return self._ids is not None

    def _reason(self) -> tuple[str, str, str] | None:
        """Why MLflow cannot get the run: a short name of the cause, the cause, and what to do."""
        if self._ids is not None or isinstance(self.run, AdoptedRun):
            return None
        mode = settings.mode()
        if not self.run.target.delivers or mode != "online":
            return mode, f"in mode {mode!r} there is no MLflow run yet", _OWN_FUNCTIONS
        if not self._absent and is_unavailable(self.run.target):
            # This does not wait, but the run may exist by now.
            self.resolve()
        return ("away", "MLflow's store did not answer", _STATUS) if self._absent else None

    def _report(self, cause: str, reason: str, advice: str) -> None:
        if cause in self._reported:
            return
        self._reported.add(cause)
        append_tags(self.run, {"trackdsl.omitted.mlflow": mask_prose(f"plain MLflow calls: {reason}")[:500]})
        report(
            "mlflow",
            f"plain MLflow calls inside {self.run.path!r} go where MLflow sends them by itself: {reason}. {advice}",
            key=f"{cause}:{self.run.target.uri}",
        )


_STATUS = "`trackdsl status` shows what is waiting."
_OWN_FUNCTIONS = "What trackdsl's own functions record (log_metric, log_param, …) is kept for `trackdsl sync`."


class _Info(RunInfo):
    """The `info` of the run of a scope. Fields that trackdsl does not know are read from the store when needed."""

    def __init__(self, entry: ScopeRun, run_id: str, experiment_id: str) -> None:
        self._entry = entry
        self._own = (run_id, experiment_id)

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (self._entry.fetched().info,)

    def __eq__(self, other: object) -> bool:
        return bool(copy.copy(self) == (copy.copy(other) if isinstance(other, _Info) else other))

    __hash__ = None  # type: ignore[assignment]

    @property
    def run_id(self) -> str:
        return self._own[0]

    @property
    def experiment_id(self) -> str:
        return self._own[1]

    @property
    def start_time(self) -> Any:
        return self._entry.run.began // 1_000_000 or self._entry.fetched().info.start_time


def _looked_up(name: str) -> property:
    return property(lambda info: getattr(info._entry.fetched().info, name))


for _name in ("artifact_uri", "end_time", "lifecycle_stage", "run_name", "status", "user_id"):
    setattr(_Info, _name, _looked_up(_name))
