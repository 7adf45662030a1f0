"""Find out whether a launcher (torchrun, SLURM, MPI and others) started this process as one rank of several.

Launchers set environment variables. Some have the same value in all ranks, such as the number of a job or the address
of a master; every rank computes the same key from them. A child process of a rank inherits these variables, but it is
not a rank. So each rank sets `TRACKDSL_RANK_OF` to its process id and the key of its launch.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from trackdsl._core import runtime
from trackdsl._core.runtime import Phase
from trackdsl.journal._mounts import boot_id

#: The variable by which a process knows that a rank, and not the launcher, started it.
MARK = "TRACKDSL_RANK_OF"


class Launch(NamedTuple):
    """The launch that this process is a rank of.

    Attributes:
        key: the same for all ranks of this attempt, and different for all other launches.
        rank: the rank of this process, from 0.
        size: the number of ranks.
        local_rank: the rank among those of this machine; None where the launcher does not give it.
        node: the number of this machine in the launch, or else its name.
        shown: the launcher and its name for the launch.
        attempt: the number of this attempt, from 1: launchers may restart all ranks after a failure.
    """

    key: str
    rank: int
    size: int
    local_rank: int | None
    node: str
    shown: str
    attempt: int


class _Launcher(NamedTuple):
    """The environment variables of a launcher.

    Attributes:
        name: the launcher's name.
        rank, size, local_rank, local_size: as in `Launch`.
        node: the number of the machine.
        ids: values that together identify the launch, each with its alternative names; messages show them.
        hints: further values that the ranks share. Other launches may have the same.
        attempt: the number of restarts.
    """

    name: str
    rank: str
    size: tuple[str, ...]
    local_rank: str
    local_size: str = ""
    node: tuple[str, ...] = ()
    ids: tuple[tuple[str, ...], ...] = ()
    hints: tuple[str, ...] = ()
    attempt: str = ""

    def variables(self) -> Iterator[str]:
        """All variables of the launcher."""
        yield from (self.rank, *self.size, *self.node, *self.hints)
        yield from (name for names in self.ids for name in names)
        yield from filter(None, (self.local_rank, self.local_size, self.attempt))


#: The variables with a job's number in batch systems. One job may contain several launches.
_JOBS = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "PBS_JOBID", "LSB_JOBID", "COBALT_JOBID", "FLUX_JOB_ID")
_MASTER = ("MASTER_ADDR", "MASTER_PORT")
_SLURM = _Launcher(
    "slurm", "SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"), "SLURM_LOCALID",
    node=("SLURM_NODEID",), ids=(("SLURM_JOB_ID", "SLURM_JOBID"), ("SLURM_STEP_ID", "SLURM_STEPID")),
    attempt="SLURM_RESTART_COUNT",
)  # fmt: skip
_TORCH = _Launcher(
    "torch", "RANK", ("WORLD_SIZE",), "LOCAL_RANK", "LOCAL_WORLD_SIZE", ("GROUP_RANK", "NODE_RANK"),
    ids=(("TORCHELASTIC_RUN_ID",),), hints=_MASTER, attempt="TORCHELASTIC_RESTART_COUNT",
)  # fmt: skip
#: `RANK` and `WORLD_SIZE` mean a launch only if one of these variables is set as well.
_WITH_RANK = (*_MASTER, "TORCHELASTIC_RUN_ID", "LOCAL_RANK")
#: The innermost launcher first: jobs of SLURM start the others.
_LAUNCHERS = (
    _TORCH,
    _Launcher(
        "horovod", "HOROVOD_RANK", ("HOROVOD_SIZE",), "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE",
        ("HOROVOD_CROSS_RANK",), hints=("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"),
    ),
    _Launcher(
        "mpi", "OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",), "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE", ids=(("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"),),
    ),
    _Launcher(
        "mpi", "MV2_COMM_WORLD_RANK", ("MV2_COMM_WORLD_SIZE",), "MV2_COMM_WORLD_LOCAL_RANK",
        "MV2_COMM_WORLD_LOCAL_SIZE", hints=("PMI_JOBID",),
    ),
    _Launcher(
        "mpi", "PMI_RANK", ("PMI_SIZE",), "MPI_LOCALRANKID", "MPI_LOCALNRANKS", ("PALS_NODEID",),
        ids=(("PALS_APID",),), hints=("PMI_JOBID",),
    ),
    _Launcher("flux", "FLUX_TASK_RANK", ("FLUX_JOB_SIZE",), "FLUX_TASK_LOCAL_ID", ids=(("FLUX_JOB_ID",),)),
    _SLURM,
    # Lightning restarts the program for all ranks but the first, and gives only the local rank of each.
    _Launcher("torch", "LOCAL_RANK", ("WORLD_SIZE",), "LOCAL_RANK", "LOCAL_WORLD_SIZE", ("NODE_RANK",), hints=_MASTER),
)  # fmt: skip
#: The id that torchrun has without `--rdzv-id`.
_NO_ID = ("", "none")
#: The names that SLURM gives to jobs that are shells.
_SHELLS = ("interactive", "bash", "sh", "zsh", "fish", "tcsh", "csh", "ksh")

#: The variables of ranks, as `os.environ` keeps them: bytes, or text on Windows. A process without them is not a rank.
_ENCODED = frozenset(
    os.fsencode(launcher.rank) if os.supports_bytes_environ else launcher.rank for launcher in _LAUNCHERS
)


class _Process:
    """The launch of this process, as far as the process knows it.

    Attributes:
        inherited: the variables that this process inherited from another process of the program, which is the rank.
        found: the last launch that was found, and the values of the variables then.
    """

    inherited: tuple[str | None, ...] | None = None
    found: tuple[tuple[str | None, ...], Launch | None] | None = None

    def inherit(self) -> None:
        """Treat this process as no rank, because the process that started it is the rank. New values count again."""
        self.inherited = _relevant(os.environ)

    def forget_found(self) -> None:
        """Forget the last launch, so that the variables are read again."""
        self.found = None


_process = _Process()


def current() -> Launch | None:
    """The launch that this process is a rank of; None if it is not a rank."""
    # The dict behind CPython's `os.environ`, which itself takes a microsecond for each missing variable.
    kept = getattr(os.environ, "_data", None)
    if isinstance(kept, dict) and kept.keys().isdisjoint(_ENCODED):
        return None
    return _own(os.environ)


def read(environ: Mapping[str, str]) -> Launch | None:
    """The launch that an environment describes, whichever process it belongs to.

    >>> launch = read({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_NTASKS": "4"})
    >>> launch.rank, launch.size, launch.shown
    (3, 4, 'slurm 7.0')
    """
    for launcher in _LAUNCHERS:
        rank, size = _number(environ, launcher.rank), _number(environ, *launcher.size)
        if rank is None or size is None:
            continue
        if launcher is _SLURM and not _is_task(environ):
            continue
        if launcher is _TORCH and not any(map(environ.get, _WITH_RANK)):
            continue  # Other software may use these two names.
        if launcher.rank == launcher.local_rank:  # Lightning's.
            rank = _rank_of_local(environ, rank)
        if rank is None or rank >= size or size < 2 or _is_interactive():
            return None
        return _launch(environ, launcher, rank, size)
    return None


def _launch(environ: Mapping[str, str], launcher: _Launcher, rank: int, size: int) -> Launch:
    ids = [_first(environ, names) for names in launcher.ids]
    hints = [environ.get(name, "") for name in launcher.hints]
    named = [text for text in ids if text not in _NO_ID]
    again = _number(environ, launcher.attempt) or 0
    jobs = [environ.get(name, "") for name in _JOBS]
    parts = [launcher.name, str(size), str(again), *ids, *hints, *jobs]
    local_size = _number(environ, launcher.local_size)
    if not named and (local_size == size or not any([*hints, *jobs])):
        # The next launch on this machine may have equal values, so add the process that started the ranks.
        parts.append(_starter(launcher.rank))
    shown = ".".join(named) or ":".join(filter(None, hints)) or ".".join(filter(None, jobs[:1]))
    return Launch(
        key=hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32],
        rank=rank,
        size=size,
        local_rank=_number(environ, launcher.local_rank),
        node=_first(environ, launcher.node) or os.uname().nodename,
        shown=f"{launcher.name} {shown}".strip(),
        attempt=again + 1,
    )


def _own(environ: Mapping[str, str]) -> Launch | None:
    """The launch of this process; None also for a process that inherited its environment from a rank."""
    seen = _relevant(environ)
    if _process.found is None or _process.found[0] != seen:
        _process.found = seen, read(environ)
    launch = _process.found[1]
    if launch is None or seen == _process.inherited:
        return None
    identity = f"{launch.key}.{launch.rank}"
    pid, _, marked = environ.get(MARK, "").partition(":")
    if marked == identity and pid != str(os.getpid()):
        return None
    if marked != identity:
        os.environ[MARK] = f"{os.getpid()}:{identity}"
    return launch


def _first(environ: Mapping[str, str], names: Iterable[str]) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")


def _number(environ: Mapping[str, str], *names: str) -> int | None:
    for name in names:
        text = environ.get(name, "").strip()
        if text.isdecimal() and len(text) < 10:
            return int(text)
    return None


def _rank_of_local(environ: Mapping[str, str], local_rank: int) -> int | None:
    if not environ.get("MASTER_PORT"):
        return None  # `LOCAL_RANK` alone selects a device.
    node = _number(environ, "NODE_RANK") or 0
    per_node = _number(environ, "LOCAL_WORLD_SIZE")
    if node and per_node is None:
        return None
    return node * (per_node or 0) + local_rank


def _is_task(environ: Mapping[str, str]) -> bool:
    """Whether SLURM started this process as a task: shells and scripts of a job have its variables too."""
    step = _first(environ, _SLURM.ids[1])
    if not step:
        return environ.get("ENVIRONMENT") != "BATCH" and environ.get("SLURM_JOB_NAME") not in _SHELLS
    if _number({"step": step}, "step") is None:  # The steps of shells and scripts have ten digits.
        return False
    # The shell of `srun --pty bash` has this variable and a terminal. Tasks that it starts have the variable alone.
    return not (environ.get("SLURM_PTY_PORT") and os.isatty(0))


def _is_interactive() -> bool:
    """Whether the process is interactive: a notebook or a prompt."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return hasattr(sys, "ps1") or (shell is not None and shell() is not None)


def _starter(variable: str) -> str:
    """The process that started the ranks of this machine: the nearest ancestor that is not a rank."""
    import psutil  # Here, so that programs without a launcher do not import it.

    found = None
    try:
        for parent in psutil.Process().parents():
            found = parent
            try:
                if variable not in parent.environ():
                    break
            except psutil.Error:  # Another user's, such as the daemon of a batch system.
                break
        return "" if found is None else f"{boot_id()} {found.pid} {found.create_time()}"
    except psutil.Error:
        return ""


def _relevant(environ: Mapping[str, str]) -> tuple[str | None, ...]:
    return tuple(map(environ.get, _READ))


_READ = tuple(
    dict.fromkeys([
        *(name for launcher in _LAUNCHERS for name in launcher.variables()),
        *_JOBS, "SLURM_PTY_PORT", "SLURM_JOB_NAME", "ENVIRONMENT",
    ])
)  # fmt: skip

_processes = sys.modules.get("multiprocessing.process")
if _processes is not None and _processes.parent_process() is not None:
    _process.inherit()
else:
    current()  # It sets `TRACKDSL_RANK_OF`, so that processes started from here are not ranks.
runtime.register("the rank in a launch", Phase.IDENTITY, after_fork=_process.inherit, reset=_process.forget_found)
