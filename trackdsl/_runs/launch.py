"""Whether this process is one of several that a launcher has started together: torchrun, SLURM, MPI and others.

Launchers say so in the environment, and share something there from which every process derives the same key: the
number of a job, the address of a master. A process that a rank has started inherits this and is no rank: each rank
leaves a mark in its environment, `TRACKDSL_RANK_OF`, with its process id and the key that it is a rank of.
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

#: The variable that tells the processes which a rank starts that the launcher did not start them.
MARK = "TRACKDSL_RANK_OF"


class Launch(NamedTuple):
    """The launch that this process is a part of.

    Attributes:
        key: the same for all ranks of this attempt, and for nobody else.
        rank: of this process, from 0.
        size: how many ranks there are.
        local_rank: the rank among those of this machine; None where the launcher does not say it.
        node: the number of this machine among those of the launch, or else its name.
        shown: the launcher, and what it calls the launch.
        attempt: which try this is, from 1: launchers may start everything again after a failure.
    """

    key: str
    rank: int
    size: int
    local_rank: int | None
    node: str
    shown: str
    attempt: int


class _Launcher(NamedTuple):
    """What a launcher says, each by a variable of the environment.

    Attributes:
        name: of the launcher.
        rank, size, local_rank, local_size: as in `Launch`.
        node: the number of the machine.
        ids: what tells the launch from all others, together, each with its names; it is shown.
        hints: what the ranks share besides, and other launches may share too.
        attempt: how often the launch was started again.
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
        """All variables that it says something by."""
        yield from (self.rank, *self.size, *self.node, *self.hints)
        yield from (name for names in self.ids for name in names)
        yield from filter(None, (self.local_rank, self.local_size, self.attempt))


#: What batch systems call a job; several launches may be made in one.
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
#: `RANK` and `WORLD_SIZE` are those of a launch where one of these stands beside them.
_BESIDE_RANK = (*_MASTER, "TORCHELASTIC_RUN_ID", "LOCAL_RANK")
#: The innermost first, as jobs of SLURM start the others.
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
    # Lightning starts the program anew for all ranks but the first, and says the place of each on its machine alone.
    _Launcher("torch", "LOCAL_RANK", ("WORLD_SIZE",), "LOCAL_RANK", "LOCAL_WORLD_SIZE", ("NODE_RANK",), hints=_MASTER),
)  # fmt: skip
#: The id that torchrun has where it was given none.
_NO_ID = ("", "none")
#: What SLURM calls a job that is a shell.
_SHELLS = ("interactive", "bash", "sh", "zsh", "fish", "tcsh", "csh", "ksh")

#: Without one of these nobody is a rank; as they may be kept behind `os.environ`.
_ENCODED = frozenset(kept for launcher in _LAUNCHERS for kept in (launcher.rank, os.fsencode(launcher.rank)))


class _Process:
    """What this process knows about its launch.

    Attributes:
        inherited: the variables as another process of the program left them; they make that one a rank, and not this.
        found: the last launch that was found, with the variables that were read for it.
    """

    inherited: tuple[str | None, ...] | None = None
    found: tuple[tuple[str | None, ...], Launch | None] | None = None

    def inherit(self) -> None:
        """Leave the rank to the process that made this one. A program may still make this one a rank itself."""
        self.inherited = _relevant(os.environ)

    def forget_found(self) -> None:
        """Read the variables again."""
        self.found = None


_process = _Process()


def current() -> Launch | None:
    """The launch that this process is a rank of; None where it is none."""
    # What CPython keeps behind `os.environ`, which takes a microsecond to say of one variable that it is not there.
    kept = getattr(os.environ, "_data", None)
    if isinstance(kept, dict) and kept.keys().isdisjoint(_ENCODED):
        return None
    return _own(os.environ)


def read(environ: Mapping[str, str]) -> Launch | None:
    """The launch that an environment is of, whatever process it belongs to.

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
        if launcher is _TORCH and not any(map(environ.get, _BESIDE_RANK)):
            continue  # Two variables that others have left, or mean something else by.
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
        # All that there is may be the same for the next launch here, and its ranks are of this machine.
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
    """The launch that this process is a rank of, and not a process that has inherited its environment from one."""
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
        return None  # Somebody has named a card of the machine, and no launch.
    node = _number(environ, "NODE_RANK") or 0
    per_node = _number(environ, "LOCAL_WORLD_SIZE")
    if node and per_node is None:
        return None
    return node * (per_node or 0) + local_rank


def _is_task(environ: Mapping[str, str]) -> bool:
    """Whether SLURM has started a task: a shell or script of a job has its variables too."""
    step = _first(environ, _SLURM.ids[1])
    if not step:
        return environ.get("ENVIRONMENT") != "BATCH" and environ.get("SLURM_JOB_NAME") not in _SHELLS
    if _number({"step": step}, "step") is None:  # The steps that stand for a shell or a script have ten digits.
        return False
    # `srun --pty bash`; tasks that are started from there inherit the variable, and no terminal.
    return not (environ.get("SLURM_PTY_PORT") and os.isatty(0))


def _is_interactive() -> bool:
    """Whether somebody types what runs here: in a notebook or at a prompt."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return hasattr(sys, "ps1") or (shell is not None and shell() is not None)


def _starter(variable: str) -> str:
    """The process that has started the ranks of this machine: the nearest that is no rank itself."""
    import psutil  # Costs programs that nobody has launched nothing.

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
    current()  # What this process starts from here on is no rank.
runtime.register("the rank in a launch", Phase.IDENTITY, after_fork=_process.inherit, reset=_process.forget_found)
