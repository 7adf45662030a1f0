"""The events of the journal and their wire form.

An event is a MessagePack array whose first element is its type number. Fields are only ever added at the end, with a
default, so that an older journal stays readable; anything else needs a new `SCHEMA` and a golden file of the old one.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any, cast

import msgspec

from trackdsl._core.decoders import msgpack_decoder

#: Version of the wire form. A journal with a higher number is left alone.
SCHEMA = 3

#: The tag that tells MLflow's id of the experiment of a root run, where it names no experiment.
EXPERIMENT_ID = "trackdsl.experiment_id"

#: MessagePack holds integers from -INT64 to 2 * INT64 - 1, MLflow steps of 64 bits with a sign.
INT64 = 1 << 63

Scalar = bool | int | float | str | None


class Event(msgspec.Struct, array_like=True, frozen=True):
    """Something that a program recorded. Times are nanoseconds since 1970, ids 16 bytes."""


class Rank(msgspec.Struct, array_like=True, frozen=True):
    """The place of a run among those of the processes that a launcher has started together.

    `root` is the name of the run that they have in common as their parent, `launch` what the launcher is called and
    calls this launch, `attempt` counts from 1. With `goes_on` the root is a run that goes on: that of this id, ours or
    MLflow's.
    """

    root: str
    rank: int
    size: int
    local_rank: int | None
    node: str
    launch: str
    attempt: int
    goes_on: str = ""


class Open(Event, frozen=True, tag=1):
    """A run begins. `site` is the function: qualified name, file, hash of its source.

    With a `rank` its parent is nobody's: whoever delivers the first of these runs makes it.
    With `goes_on`, it is no new run: the run of that id, ours or MLflow's, goes on under our id `run`.
    """

    run: bytes
    parent: bytes | None
    experiment: str | None
    name: str
    word: str
    path: str
    index: int
    time: int
    params: dict[str, Scalar]
    tags: dict[str, str]
    site: tuple[str, str, str] | None
    rank: Rank | None = None
    goes_on: str = ""


class Params(Event, frozen=True, tag=2):
    """Parameters of a run; formatted as text by whoever delivers them."""

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
    """One point each of several metrics."""

    run: bytes
    values: dict[str, float]
    step: int
    time: int


class Tags(Event, frozen=True, tag=5):
    """Tags of a run; the last value of a name stands."""

    run: bytes
    values: dict[str, str]


class File(Event, frozen=True, tag=6):
    """An artifact. `snapshot` is its copy, relative to the journal's `files` folder; `path` its place in the run.

    `handler` names what wrote it and reads it back; `sha256` is the hash of what may run code when it is read; `types`
    says that the types of what it holds are in a file beside it.
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
    """`run` stands for a run that somebody else ends, plain MLflow mostly; this program only writes to it.

    Without the id of an experiment, `mlflow_run_id` may be our id of the run too, and is looked up.
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
    """A model. `snapshot` is a folder: `model/` holds its files, `spec.json` what MLflow is to be told of it."""

    run: bytes
    name: str
    snapshot: str
    registered_name: str | None
    step: int
    time: int
    handler: str = ""
    sha256: str = ""


class Table(Event, frozen=True, tag=11):
    """Rows to be appended to a table. `snapshot` is a JSON file of `columns` and `data`; `path` the table's place."""

    run: bytes
    path: str
    snapshot: str


class LinkedMetrics(Metrics, frozen=True, tag=12):
    """Points that say which model they were measured of, and on which data.

    `model` is MLflow's id of a logged model, or `key:` and the key of a `Model` event, see `model_key`. Where it is
    empty the points belong to the models that the run has at their step. `dataset` is name and digest of an `Input`.
    """

    model: str = ""
    dataset: tuple[str, str] | None = None


class ModelInput(Event, frozen=True, tag=13):
    """A run uses a model, which is named as in `LinkedMetrics`."""

    run: bytes
    model: str
    time: int


class ModelOutput(Event, frozen=True, tag=14):
    """A model of a run that plain MLflow has logged, by MLflow's id."""

    run: bytes
    model_id: str
    step: int


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
)
#: Begins the name of a model that was recorded by trackdsl, before its key.
KEY = "key:"


def model_key(event: Model) -> str:
    """What is the same each time this very model is delivered, and is that of no other; a tag of the logged model."""
    named = json.dumps([event.run.hex(), event.name, event.snapshot, event.time])
    return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:32]


encode = msgspec.msgpack.Encoder().encode


def encode_safely(event: AnyEvent) -> bytes:
    """The wire form of an event, whatever stands in it."""
    try:
        return encode(event)
    except (OverflowError, UnicodeEncodeError, ValueError):
        return encode(storable(event))


def storable(value: Any) -> Any:
    """Replace what MessagePack cannot hold: integers beyond 64 bits, lone surrogates."""
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
def _decode() -> Callable[[bytes | memoryview], AnyEvent]:
    return msgpack_decoder(cast("type[AnyEvent]", AnyEvent)).decode


def decode(payload: bytes | memoryview) -> AnyEvent:
    """The event of a payload.

    Raises:
        msgspec.MsgspecError: it is none.
    """
    return _decode()(payload)
