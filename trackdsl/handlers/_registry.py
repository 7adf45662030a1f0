"""The registry behind `trackdsl.handlers`."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trackdsl.errors import OptionError, format_error, report, reraise_from_signal

if TYPE_CHECKING:
    from trackdsl.handlers._dataset import DatasetProfile
    from trackdsl.handlers._flavor import Flavor

Scalar = bool | int | float | str | None

#: The answer of `Handler.content` for what only a file of its own can hold.
APART: Any = object()

#: The group of entry points: the full name of a type → `module:attribute` of its handler.
ENTRY_POINTS = "trackdsl.handlers"


#: An array or frame of more cells than this is no content of a file of JSON, but a file of its own.
MAX_CELLS = 100_000


class Stated(str):
    """A text in the place of a value that was not, or could not be, read.

    Args:
        text: says what is there: `???`, or a type and a shape.
        why: the reason.
        missing: whether that is a fault, which parameters report too.
    """

    why: str
    missing: bool

    def __new__(cls, text: str, why: str, *, missing: bool = True) -> Stated:
        found = super().__new__(cls, text)
        found.why, found.missing = why, missing
        return found


class Handler:
    """What trackdsl knows of values of some types. Subclass it and change what differs.

    A handler must not change the value and must not keep it.

    Attributes:
        suffix: the ending of the files it writes, with the dot.
        suffixes: other endings that `write` understands, for a path that the user chose.
        executes: reading such a file may run code that is in it, so it needs `trusted=True`.
        model: values are MLflow models where nothing else is said.
        listed: values are lists by another name, whose items `content` gives.
        named: all that `content` gives is a name, which tells nothing where the value itself is to be kept.
        is_text: the summary of a value is all of it, as text, and so stands in quotes in the line of a list.

    Example:
        >>> class Upper(Handler):
        ...     suffix = ".txt"
        ...     def write(self, value, path):
        ...         path.write_text(value.name.upper())
        ...     def read(self, path):
        ...         return path.read_text()
    """

    suffix: str = ".pkl"
    suffixes: tuple[str, ...] = ()
    executes: bool = False
    model: bool = False
    listed: bool = False
    named: bool = False
    #: What `save_model` takes by name beside the model, each with the values that there are; none where any may be.
    save_options: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    #: Values stand for a model that MLflow holds, see `references.py`.
    refers: bool = False
    is_text: bool = False

    def accepts(self, value: Any) -> bool:
        """Whether `write` can hold all of this value; where not, it is pickled."""
        return True

    def children(self, value: Any) -> Mapping[Any, Any] | None:
        """The parts of a structure by name, each of which becomes a parameter of its own; None for anything else."""
        return None

    def content(self, value: Any) -> Any:
        """All of the value for a file of JSON: a dict or a list, of whatever values, or a plain value.

        Returns:
            `APART` where only a file of its own can hold it.
        """
        parts = self.children(value)
        return APART if parts is None else parts

    def summary(self, value: Any) -> Scalar:
        """The value as a parameter: a number, or one line of text. Never its `repr`, which may be huge."""
        return class_name(value)

    def write(self, value: Any, path: Path) -> None:
        """Write `value` to the new file `path`, whose suffix is one of the handler's.

        Raises:
            Exception: whatever goes wrong; it is recorded on the run.
        """
        raise NotImplementedError(f"{type(self).__name__} writes no files")

    def read(self, path: Path) -> Any:
        """Read back what `write` has written."""
        raise NotImplementedError(f"{type(self).__name__} reads no files")

    def dataset(self, value: Any) -> DatasetProfile | None:
        """Digest, schema and size of data, for an MLflow dataset input; None for what is no data."""
        return None

    def save_model(self, value: Any, folder: Path) -> Flavor | None:
        """Write a model's files to `folder`, as the flavour of MLflow wants them; None for what is no model."""
        return None


class _Adapted(Handler):
    """An object that has only some of a handler's attributes."""

    def __init__(self, handler: Any) -> None:
        for name in ("suffix", "suffixes", "executes", "model", "listed", "named", "is_text", "accepts", "children",
                     "content", "summary", "write", "read", "dataset", "save_model"):  # fmt: skip
            if hasattr(handler, name):
                setattr(self, name, getattr(handler, name))


_HERE = "trackdsl.handlers"
#: Full name of a type → where its handler lives (`module:attribute`), or the handler itself. Later entries win.
_by_name: dict[str, str | Handler] = {
    "object": f"{_HERE}.pickled:handler",
    **dict.fromkeys(("builtins.dict", "collections.abc.Mapping"), f"{_HERE}.json:mapping"),
    **dict.fromkeys(("builtins.list", "builtins.tuple"), f"{_HERE}.json:sequence"),
    **dict.fromkeys(("builtins.set", "builtins.frozenset"), f"{_HERE}.scalars:group"),
    **dict.fromkeys(
        ("collections.deque", "collections.UserList", "array.array", "builtins.dict_keys", "builtins.dict_values",
         "builtins.dict_items"),
        f"{_HERE}.json:listing",
    ),
    "re.Pattern": f"{_HERE}.scalars:pattern",
    **dict.fromkeys(("builtins.bool", "builtins.int", "builtins.float", "builtins.NoneType"), f"{_HERE}.json:number"),
    "builtins.str": f"{_HERE}.text:handler",
    **dict.fromkeys(("builtins.bytes", "builtins.bytearray", "builtins.memoryview"), f"{_HERE}.binary:handler"),
    "pathlib.PurePath": f"{_HERE}.path:handler",
    "enum.Enum": f"{_HERE}.scalars:member",
    **dict.fromkeys(("datetime.date", "datetime.time"), f"{_HERE}.scalars:moment"),
    **dict.fromkeys(
        ("datetime.tzinfo", "decimal.Decimal", "fractions.Fraction", "uuid.UUID", "builtins.complex", "builtins.slice",
         "ipaddress._IPAddressBase", "ipaddress._BaseNetwork", "numpy.dtype", "torch.dtype", "torch.device",
         "pandas.Period", "pandas._libs.tslibs.period.Period", "pandas.Interval", "pandas._libs.interval.Interval",
         "pandas._libs.tslibs.offsets.BaseOffset", "pandas.core.dtypes.base.ExtensionDtype",
         "pandas.api.extensions.ExtensionDtype", "types.GenericAlias", "types.UnionType", "typing._Final"),
        f"{_HERE}.scalars:shown",
    ),
    "datetime.timedelta": f"{_HERE}.scalars:duration",
    "builtins.BaseException": f"{_HERE}.scalars:failure",
    "builtins.range": f"{_HERE}.scalars:span",
    **dict.fromkeys(("pandas._libs.missing.NAType", "pandas.api.typing.NAType"), f"{_HERE}.scalars:missing"),
    **dict.fromkeys(
        ("builtins.type", "builtins.function", "builtins.method", "builtins.builtin_function_or_method",
         "builtins.method_descriptor", "builtins.wrapper_descriptor", "builtins.method-wrapper"),
        f"{_HERE}.functions:handler",
    ),
    **dict.fromkeys(
        ("functools.partial", "functools.partialmethod", "toolz.functoolz.curry"), f"{_HERE}.functions:partial"
    ),
    **dict.fromkeys(
        ("operator.itemgetter", "operator.attrgetter", "operator.methodcaller"), f"{_HERE}.functions:getter"
    ),
    **dict.fromkeys(
        ("functools._lru_cache_wrapper", "builtins.staticmethod", "builtins.classmethod", "numpy.ufunc",
         "numpy._ArrayFunctionDispatcher", "numpy.vectorize", "numpy.lib.function_base.vectorize",
         "numba.core.dispatcher.Dispatcher", "numba.np.ufunc.dufunc.DUFunc", "torch.jit.torch.jit.ScriptFunction",
         "torch._C.ScriptFunction", "jaxlib._jax.PjitFunction", "jaxlib.xla_extension.PjitFunction",
         "joblib.memory.MemorizedFunc", "joblib.memory.NotMemorizedFunc"),
        f"{_HERE}.functions:compiled",
    ),
    "sklearn.metrics._scorer._BaseScorer": f"{_HERE}.functions:scorer",
    "scipy.stats._distn_infrastructure.rv_frozen": f"{_HERE}.functions:distribution",
    **dict.fromkeys(("argparse.Namespace", "types.SimpleNamespace"), f"{_HERE}.structures:namespace"),
    "optuna.trial._base.BaseTrial": f"{_HERE}.optuna:trial",
    "pydantic.main.BaseModel": f"{_HERE}.pydantic:model",
    "pydantic.v1.main.BaseModel": f"{_HERE}.pydantic:model",
    "omegaconf.basecontainer.BaseContainer": f"{_HERE}.omegaconf:config",
    **dict.fromkeys(
        ("omegaconf.listconfig.ListConfig", "omegaconf.tupleconfig.TupleConfig"), f"{_HERE}.omegaconf:listing"
    ),
    "omegaconf.base.Node": f"{_HERE}.omegaconf:node",
    # Data.
    **dict.fromkeys(("pandas.core.frame.DataFrame", "pandas.DataFrame"), f"{_HERE}.pandas:frame"),
    **dict.fromkeys(("pandas.core.series.Series", "pandas.Series"), f"{_HERE}.pandas:series"),
    **dict.fromkeys(("pandas.core.indexes.base.Index", "pandas.Index"), f"{_HERE}.pandas:index"),
    **dict.fromkeys(
        ("pandas.core.arrays.base.ExtensionArray", "pandas.api.extensions.ExtensionArray"),
        f"{_HERE}.pandas:extension",
    ),
    "polars.dataframe.frame.DataFrame": f"{_HERE}.polars:frame",
    "polars.series.series.Series": f"{_HERE}.polars:series",
    "polars.lazyframe.frame.LazyFrame": f"{_HERE}.polars:lazy",
    "pyarrow.lib.Table": f"{_HERE}.pyarrow:table",
    "pyarrow.lib.RecordBatch": f"{_HERE}.pyarrow:batch",
    "pyarrow.lib.ChunkedArray": f"{_HERE}.pyarrow:chunked",
    "pyarrow.lib.Array": f"{_HERE}.pyarrow:array",
    "pyarrow.lib.Scalar": f"{_HERE}.pyarrow:scalar",
    "numpy.ndarray": f"{_HERE}.numpy:handler",
    "numpy.generic": f"{_HERE}.numpy:scalar",
    "numpy.str_": f"{_HERE}.text:handler",
    "numpy.bytes_": f"{_HERE}.binary:handler",
    "torch.Tensor": f"{_HERE}.tensors:handler",
    **dict.fromkeys(("scipy.sparse._base._spbase", "scipy.sparse._base.spmatrix"), f"{_HERE}.scipy:handler"),
    # Data that is not in memory.
    "numpy.lib.npyio.NpzFile": f"{_HERE}.lazy:archive",
    "numpy.lib._npyio_impl.NpzFile": f"{_HERE}.lazy:archive",
    "zarr.core.group.Group": f"{_HERE}.lazy:group",
    "zarr.core.array.Array": f"{_HERE}.lazy:stored",
    **dict.fromkeys(
        ("dask.dataframe.dask_expr._collection.FrameBase", "dask.dataframe.core._Frame"), f"{_HERE}.lazy:planned"
    ),
    "datasets.arrow_dataset.Dataset": f"{_HERE}.lazy:rows",
    # Pictures.
    **dict.fromkeys(
        ("matplotlib.figure.FigureBase", "matplotlib.axes._base._AxesBase", "seaborn.axisgrid._BaseGrid",
         "seaborn._core.plot.Plot"),
        f"{_HERE}.matplotlib:handler",
    ),
    "builtins.module": f"{_HERE}.matplotlib:module",
    "plotly.basedatatypes.BaseFigure": f"{_HERE}.plotly:handler",
    **dict.fromkeys(
        ("altair.vegalite.v5.api.TopLevelMixin", "altair.vegalite.v6.api.TopLevelMixin"), f"{_HERE}.altair:handler"
    ),
    "bokeh.models.layouts.LayoutDOM": f"{_HERE}.bokeh:handler",
    "PIL.Image.Image": f"{_HERE}.pillow:handler",
    # Models.
    "sklearn.base.BaseEstimator": f"{_HERE}.sklearn:handler",
    **dict.fromkeys(
        ("sklearn.model_selection._split.BaseCrossValidator", "sklearn.model_selection._split.BaseShuffleSplit",
         "sklearn.gaussian_process.kernels.Kernel", "torch.optim.lr_scheduler.LRScheduler",
         "torch.optim.lr_scheduler._LRScheduler"),
        f"{_HERE}.sklearn:configured",
    ),
    "torch.optim.optimizer.Optimizer": f"{_HERE}.torch:optimizer",
    **dict.fromkeys(("xgboost.core.Booster", "xgboost.sklearn.XGBModel"), f"{_HERE}.xgboost:handler"),
    "lightgbm.basic.Booster": f"{_HERE}.lightgbm:booster",
    "lightgbm.sklearn.LGBMModel": f"{_HERE}.lightgbm:estimator",
    "torch.nn.modules.module.Module": f"{_HERE}.torch:module",
    "keras.src.models.model.Model": f"{_HERE}.keras:handler",
    **dict.fromkeys(
        ("keras.src.callbacks.history.History", "keras.src.callbacks.History", "tf_keras.src.callbacks.History"),
        f"{_HERE}.keras:history",
    ),
    "mlflow.pyfunc.model.PythonModel": f"{_HERE}.pyfunc:handler",
    **dict.fromkeys(
        ("trackdsl.handlers.references.Handle", "mlflow.pyfunc.PyFuncModel", "mlflow.models.model.ModelInfo",
         "mlflow.entities.logged_model.LoggedModel"),
        f"{_HERE}.references:handler",
    ),
    "<model>": f"{_HERE}.pyfunc:anything",  # What is marked as a model and is none by its type.
}  # fmt: skip
_SECRET_TYPES = ("SecretStr", "SecretBytes", "Secret")
_cache: dict[type, Handler] = {}
#: Which entry of `_by_name` a type was resolved by, which is what an artifact remembers.
_names: dict[type, str] = {}
#: A program that makes classes all the time must not have all of them kept.
_MAX_TYPES = 1000
_entry_points_read = False


def register_handler(type_name: type | str, handler: Any) -> None:
    """Let `handler` write values of a type and its subclasses.

    Args:
        type_name: the type, or its full name (`polars.DataFrame`) where importing it early is not wanted.
        handler: a `Handler`, or any object that has a `suffix` and `write(value, path)`.

    Raises:
        OptionError: the handler has neither.

    Example:
        >>> class Upper(Handler):
        ...     suffix = ".txt"
        ...     def write(self, value, path):
        ...         path.write_text(value.name.upper())
        >>> register_handler("shop.Customer", Upper())
    """
    if not isinstance(handler, Handler):
        if not callable(getattr(handler, "write", None)) or not isinstance(getattr(handler, "suffix", None), str):
            raise OptionError(
                f"register_handler({type_name!r}, ...) takes an object with a `suffix` and `write(value, path)`, such "
                "as a subclass of trackdsl.handlers.Handler.",
                option="handler",
            )
        handler = _Adapted(handler)
    name = type_name if isinstance(type_name, str) else full_name(type_name)
    _by_name[name] = handler
    _cache.clear()
    _names.clear()


def load_entry_points() -> None:
    """Enter what other packages offer, by name: their modules are imported when a value of the type comes."""
    global _entry_points_read
    if _entry_points_read:
        return
    _entry_points_read = True
    import importlib.metadata

    try:
        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
            _by_name.setdefault(entry.name, entry.value)
    except Exception as error:  # Of a package whose metadata is damaged: decorating must work all the same.
        reraise_from_signal(error)
        report("handler", f"trackdsl cannot read which handlers the installed packages bring: {format_error(error)}")


def handler_of(value: Any) -> Handler:
    """The handler that can write one value: its type's, unless that declines."""
    found = handler_for(type(value))
    try:
        accepted = found.accepts(value)
    except Exception:
        accepted = False
    return found if accepted else handler_for(object)


def handler_for(kind: type) -> Handler:
    """The handler for values of a type: that of the nearest base class which has one."""
    found = _cache.get(kind)
    if found is None:
        found = _resolve(kind)
    return found


def writer_for(value: Any, own: Handler, suffix: str) -> Handler | None:
    """The handler that writes a value in the format of a suffix; None where there is none.

    That is its own, or one that takes any value: pickle, and text.
    """
    if not suffix or suffix == own.suffix or suffix in own.suffixes:
        return own
    typed = handler_for(type(value))
    # A handler accepts values for its first format; another may hold what that cannot.
    if suffix in typed.suffixes:
        return typed
    if suffix in (".pkl", ".pickle"):
        return handler_for(object)
    if suffix == ".npz" and isinstance(value, Mapping) and value:  # Arrays by name.
        part = handler_for(type(next(iter(value.values()))))
        return part if suffix in part.suffixes else None
    return handler_for(str) if suffix == ".txt" else None


def name_of(handler: Handler, kind: type) -> str:
    """The name under which an artifact remembers the handler that wrote a value of type `kind`."""
    for known in (kind, object, str, dict):
        if _cache.get(known) is handler:
            return _names[known]
    return next((_names[known] for known, found in _cache.items() if found is handler), "object")


def handler_named(name: str) -> Handler | None:
    """The handler registered under a name that an artifact remembers; None where there is none here."""
    load_entry_points()
    entry = _by_name.get(name)
    return None if entry is None else _load(name, entry)


def offers(kind: type, name: str) -> bool:
    """Whether a type itself has an attribute. Values are not asked: what they load or compute then is the user's."""
    return any(name in vars(base) for base in kind.__mro__)


def is_array_like(kind: type) -> bool:
    """Whether values of a type have a `shape` that can be trusted, as those of every library of arrays have."""
    return offers(kind, "shape") and (offers(kind, "__array__") or offers(kind, "__float__"))


def is_mock(kind: type) -> bool:
    """Whether a type stands in for any other in a test, and so has whatever it is asked for."""
    return any(base.__module__ in ("unittest.mock", "mock.mock", "mock") for base in kind.__mro__)


def class_name(value: Any) -> str:
    """The full name of the value's class, without `builtins`."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def full_name(kind: type) -> str:
    """The full name of a type, by which handlers are registered."""
    # pathlib moved into a package in Python 3.13; its public name stays.
    module = "pathlib" if kind.__module__.startswith("pathlib") else kind.__module__
    return "object" if kind is object else f"{module}.{kind.__qualname__}"


def _resolve(kind: type) -> Handler:
    load_entry_points()
    name = next((name for name in _candidates(kind) if name in _by_name), "object")
    try:
        found = _load(name, _by_name[name])
    except Exception as error:  # A third party's handler that cannot be imported: its values are still recorded.
        reraise_from_signal(error)
        report("handler", f"trackdsl cannot load the handler for {name}: {format_error(error)}", key=name)
        name, found = "object", _load("object", _by_name["object"])
    if len(_cache) >= _MAX_TYPES:
        _cache.clear()
        _names.clear()
    _names[kind] = name
    _cache[kind] = found
    return found


def _candidates(kind: type) -> list[str]:
    """The names a type may be registered under, nearest first; what it is made like comes before `builtins`."""
    names = [full_name(base) for base in kind.__mro__]
    own = [name for name in names if not name.startswith("builtins.")][:-1]
    builtin = [name for name in names if name.startswith("builtins.")]
    return [*own, *_like(kind), *builtin]


def _like(kind: type) -> list[str]:
    """What a type is by its make: kept in `_by_name` under names that no class has."""
    found = []
    if kind.__name__ in _SECRET_TYPES:
        found.append("<secret>")
    if dataclasses.is_dataclass(kind):
        found.append("<dataclass>")
    if hasattr(kind, "__attrs_attrs__"):
        found.append("<attrs>")
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        found.append("<named tuple>")
    if issubclass(kind, Mapping) and not issubclass(kind, dict):
        found.append("collections.abc.Mapping")
    if issubclass(kind, type):
        found.append("builtins.type")
    return found


_by_name.update(
    {
        "<secret>": f"{_HERE}.scalars:secret",
        "<dataclass>": f"{_HERE}.structures:dataclass",
        "<attrs>": f"{_HERE}.structures:attrs",
        "<named tuple>": f"{_HERE}.structures:named_tuple",
    }
)


def _load(name: str, entry: str | Handler) -> Handler:
    if isinstance(entry, Handler):
        return entry
    module, _, attribute = entry.partition(":")
    loaded = getattr(importlib.import_module(module), attribute or "handler")
    handler = _by_name[name] = loaded if isinstance(loaded, Handler) else _Adapted(loaded)
    return handler
