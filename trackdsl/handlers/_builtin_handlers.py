"""The table of built-in handlers: which type has which handler."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

_HERE = "trackdsl.handlers"


#: Full name of a type → `module:attribute` of its handler. Names in angle brackets stand for groups of types, see
#: `kinds_of`.
BUILTIN_HANDLERS: dict[str, str] = {
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
    # Data in memory.
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
    # Data on disk, or not computed yet.
    "numpy.lib.npyio.NpzFile": f"{_HERE}.lazy:archive",
    "numpy.lib._npyio_impl.NpzFile": f"{_HERE}.lazy:archive",
    "zarr.core.group.Group": f"{_HERE}.lazy:group",
    "zarr.core.array.Array": f"{_HERE}.lazy:stored",
    **dict.fromkeys(
        ("dask.dataframe.dask_expr._collection.FrameBase", "dask.dataframe.core._Frame"), f"{_HERE}.lazy:planned"
    ),
    "datasets.arrow_dataset.Dataset": f"{_HERE}.lazy:rows",
    # Figures and images.
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
    # Kinds of types.
    "<model>": f"{_HERE}.pyfunc:anything",  # A value that is marked as a model but has no model type.
    "<secret>": f"{_HERE}.scalars:secret",
    "<dataclass>": f"{_HERE}.structures:dataclass",
    "<attrs>": f"{_HERE}.structures:attrs",
    "<named tuple>": f"{_HERE}.structures:named_tuple",
}  # fmt: skip
_SECRET_TYPES = ("SecretStr", "SecretBytes", "Secret")


def kinds_of(kind: type) -> list[str]:
    """The keys of the table that describe a type by its features instead of its name.

    >>> import collections
    >>> kinds_of(collections.namedtuple("Pair", "x y"))
    ['<named tuple>']
    """
    keys = []
    if kind.__name__ in _SECRET_TYPES:
        keys.append("<secret>")
    if dataclasses.is_dataclass(kind):
        keys.append("<dataclass>")
    if hasattr(kind, "__attrs_attrs__"):
        keys.append("<attrs>")
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        keys.append("<named tuple>")
    if issubclass(kind, Mapping) and not issubclass(kind, dict):
        keys.append("collections.abc.Mapping")
    if issubclass(kind, type):
        keys.append("builtins.type")
    return keys
