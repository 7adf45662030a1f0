"""The events of the journal, and their binary format.

An event is a MessagePack array whose first element is the number of its type. New fields are only added at the end,
with a default, so that older journals stay readable. Every change needs a new `SCHEMA`, so that an older delivery
process leaves the journal to a newer one, and a golden file of the new version.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any, cast

import msgspec

from trackdsl._core.decoders import msgpack_decoder

#: The version of the format. A journal with a higher version is not read.
SCHEMA = 5

#: The tag with MLflow's id of the experiment of a root run, if the run has no experiment name.
EXPERIMENT_ID = "trackdsl.experiment_id"
#: The tag that says how many events of a run are lost, or why.
LOST_EVENTS = "trackdsl.lost_events"

#: MessagePack holds integers from -INT64 to 2 * INT64 - 1; steps at MLflow are signed integers of 64 bits.
INT64 = 1 << 63

Scalar = bool | int | float | str | None

#: The thread and the task that a run began in: the name of the thread, its id, the name of the task, its id.
#: In the main thread, the name is empty and the id is 0; outside of tasks, so are those of the task. The id of a thread
#: is the operating system's, or Python's where that is not known. A task is one of asyncio or trio, or a greenlet; its
#: id distinguishes tasks of one name that exist at the same time. This is a tuple, because it is made for each run.
Lane = tuple[str, int, str, int]


class Event(msgspec.Struct, array_like=True, frozen=True):
    """A record of a program. Times are in nanoseconds since 1970; ids have 16 bytes."""


class Rank(msgspec.Struct, array_like=True, frozen=True):
    """The rank of a run: which of the processes that a launcher started together has recorded it.

    `root` is the name of the run that is the parent of all ranks. `launch` has the name of the launcher and its id of
    this launch. `attempt` counts from 1. With `continued_id`, the root is the earlier run with this id (ours or
    MLflow's), which is continued.
    """

    root: str
    rank: int
    size: int
    local_rank: int | None
    node: str
    launch: str
    attempt: int
    continued_id: str = ""


class Open(Event, frozen=True, tag=1):
    """A run begins. `site` is the function: qualified name, file, hash of its source.

    `decorator` is `experiment` or `stage`. `path` has the names from the root run down to this one. `index` counts the
    runs of this name in the same parent.

    With a `rank`, the parent belongs to no program: the delivery of the first rank creates it.
    With `continued_id`, the run is not new: the earlier run with that id (ours or MLflow's) is continued under our id
    `run`. With `traces`, the tree of this root run also becomes a trace. Without a `lane`, it began in the main thread,
    in no task.
    """

    run: bytes
    parent: bytes | None
    experiment: str | None
    name: str
    decorator: str
    path: str
    index: int
    time: int
    params: dict[str, Scalar]
    tags: dict[str, str]
    site: tuple[str, str, str] | None
    rank: Rank | None = None
    continued_id: str = ""
    traces: bool = False
    lane: Lane | None = None


class Params(Event, frozen=True, tag=2):
    """Parameters of a run. Delivery formats them as text."""

    run: bytes
    values: dict[str, Scalar]


class Metric(Event, frozen=True, tag=3):
    """One point of one metric."""

    run: bytes
    key: str
    value: float
    step: int
    time: int


class Metrics(Event, frozen=True, tag=4):
    """One point of each of several metrics."""

    run: bytes
    values: dict[str, float]
    step: int
    time: int


class Tags(Event, frozen=True, tag=5):
    """Tags of a run. The last value of each name counts."""

    run: bytes
    values: dict[str, str]


class File(Event, frozen=True, tag=6):
    """An artifact. `snapshot` is its copy, relative to the journal's `files` folder; `path` is its artifact path.

    `handler` is the name of the handler that wrote it and can read it. `sha256` is the hash of a file that may run code
    when it is read. `types` says whether the types of its values are in a file next to it.
    """

    run: bytes
    path: str
    snapshot: str
    directory: bool
    handler: str = ""
    sha256: str = ""
    types: bool = False


class Failure(msgspec.Struct, array_like=True, frozen=True):
    """The exception that ended a run, with secrets masked."""

    type: str
    message: str
    traceback: str


class Close(Event, frozen=True, tag=7):
    """A run ends. `lost` counts the events of this run that could not be written."""

    run: bytes
    status: str
    time: int
    failure: Failure | None = None
    lost: int = 0


class Adopt(Event, frozen=True, tag=8):
    """`run` is a run of another program or of plain MLflow, which ends it. This program only writes to it.

    Without an experiment id, `mlflow_run_id` may also be our id of the run, and delivery looks it up.
    """

    run: bytes
    mlflow_run_id: str
    mlflow_experiment_id: str


class Input(Event, frozen=True, tag=9):
    """A dataset that a run uses. `schema`, `profile` and `source` are JSON, as MLflow writes them."""

    run: bytes
    name: str
    digest: str
    source_type: str
    source: str
    schema: str
    profile: str
    context: str | None


class Model(Event, frozen=True, tag=10):
    """A model. `snapshot` is a folder with the files in `model/`, and a description for MLflow in `spec.json`."""

    run: bytes
    name: str
    snapshot: str
    registered_name: str | None
    step: int
    time: int
    handler: str = ""
    sha256: str = ""


class Table(Event, frozen=True, tag=11):
    """Rows to append to a table. `snapshot` is a JSON file with `columns` and `data`; `path` is its artifact path."""

    run: bytes
    path: str
    snapshot: str


class LinkedMetrics(Metrics, frozen=True, tag=12):
    """Metric points that belong to a model, and perhaps to a dataset.

    `model` is MLflow's id of a logged model, or `key:` and the key of a `Model` event, see `model_key`. If it is empty,
    the points belong to the models that the run has at their step. `dataset` has the name and digest of an `Input`.
    """

    model: str = ""
    dataset: tuple[str, str] | None = None


class ModelInput(Event, frozen=True, tag=13):
    """A run uses a model. `LinkedMetrics` describes how the model is named."""

    run: bytes
    model: str
    time: int


class ModelOutput(Event, frozen=True, tag=14):
    """A model that plain MLflow logged to a run, by MLflow's id."""

    run: bytes
    model_id: str
    step: int


class Loop(Event, frozen=True, tag=15):
    """The progress of a `steps` loop, for displays. It is not written to the store.

    `name` is what an iteration is called. `done` iterations are over, of `total` if that is known. `depth` counts the
    loops of the same run around it. `began` is when the loop began, and `time` when this was reported.
    """

    run: bytes
    name: str
    done: int
    total: float | None
    depth: int
    began: int
    time: int


AnyEvent = (
    Open
    | Params
    | Metric
    | Metrics
    | Tags
    | File
    | Close
    | Adopt
    | Input
    | Model
    | Table
    | LinkedMetrics
    | ModelInput
    | ModelOutput
    | Loop
)
#: The prefix of the name of a model that trackdsl recorded; its key follows.
KEY = "key:"


def model_key(event: Model) -> str:
    """A unique key of a model, which is the same each time it is delivered. It is a tag of the logged model."""
    named = json.dumps([event.run.hex(), event.name, event.snapshot, event.time])
    return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:32]


encode = msgspec.msgpack.Encoder().encode


def encode_safely(event: AnyEvent) -> bytes:
    """The bytes of an event, whatever values it contains."""
    try:
        return encode(event)
    except (OverflowError, UnicodeEncodeError, ValueError):
        return encode(storable(event))


def storable(value: Any) -> Any:
    """Replace values that MessagePack cannot hold: integers beyond 64 bits, lone surrogates."""
    if isinstance(value, msgspec.Struct):
        return type(value)(*(storable(getattr(value, name)) for name in value.__struct_fields__))
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(storable(item) for item in value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, int) and not -INT64 <= value < 2 * INT64:
        return str(value) if value.bit_length() < 10_000 else f"<an integer of {value.bit_length()} bits>"
    return value


@functools.cache
def decoder() -> Callable[[bytes | memoryview], AnyEvent]:
    """The function behind `decode`, for loops over many payloads."""
    return msgpack_decoder(cast("type[AnyEvent]", AnyEvent)).decode


def decode_many(payloads: list[bytes]) -> list[AnyEvent]:
    """The events of many payloads, up to the first one that is not an event."""
    try:
        # As one array of MessagePack: its mark (0xdd), its length, and its elements.
        return _array_decoder()(b"\xdd" + len(payloads).to_bytes(4, "big") + b"".join(payloads))
    except (msgspec.MsgspecError, RecursionError):
        found: list[AnyEvent] = []
        with contextlib.suppress(msgspec.MsgspecError, RecursionError):
            found.extend(map(decode, payloads))
        return found


@functools.cache
def _array_decoder() -> Callable[[bytes], list[AnyEvent]]:
    return msgpack_decoder(list[AnyEvent]).decode


def decode(payload: bytes | memoryview) -> AnyEvent:
    """The event of a payload.

    Raises:
        msgspec.MsgspecError: the bytes are not an event.
    """
    return decoder()(payload)
