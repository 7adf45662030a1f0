"""`torch.nn.Module` → MLflow's `pytorch` flavour."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from trackdsl._core.source_text import leave_pipe_unread
from trackdsl.errors import format_error, reraise_from_signal
from trackdsl.handlers._constructor import constructor_summary
from trackdsl.handlers._flavor import Flavor
from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._line import line_of
from trackdsl.handlers._model_files import noting_pickler
from trackdsl.handlers._model_handler import ModelHandler
from trackdsl.handlers._pickled import Pickled
from trackdsl.handlers._types import class_name

_FOLDER = "data"
_FILE = "model.pth"
#: The file that `mlflow.pytorch.load_state_dict` reads.
_STATE = "state_dict.pth"
_SOURCE = "source.py"
#: The module with which MLflow loads the file, see mlflow/pytorch/__init__.py.
_PICKLE_MODULE = "mlflow.pytorch.pickle_module"


class _Optimizer(Pickled):
    """An optimizer, with the options of its first parameter group that differ from their defaults."""

    def summary(self, value: Any) -> Scalar:
        known = inspect.signature(type(value)).parameters
        groups = value.param_groups
        options = [
            f"{name}={line_of(option)[0]}"
            for name, default in value.defaults.items()
            if (option := groups[0].get(name, default)) != getattr(known.get(name), "default", None)
        ]
        if len(groups) > 1:
            options.append(f"… {len(groups)} groups")
        return f"{class_name(value)}({', '.join(options)})"


class _Module(ModelHandler):
    suffix = ".pt"
    suffixes = (".pth",)
    save_options: ClassVar[Mapping[str, tuple[str, ...]]] = {"pickle_module": (), "serialization_format": ("pickle",)}

    def summary(self, value: Any) -> Scalar:
        parameters = list(value.parameters())
        count = sum(parameter.numel() for parameter in parameters)
        facts = [f"{count} parameters"]
        if parameters:
            facts += [str(parameters[0].dtype).removeprefix("torch."), str(parameters[0].device)]
            return f"{type(value).__name__}: {', '.join(facts)}"
        # A loss or an activation has no parameters, only the arguments of its constructor.
        return f"{str(constructor_summary(value)).removesuffix('()')}: {', '.join(facts)}"

    def write(self, value: Any, path: Path) -> None:
        _save(value, path)

    def read(self, path: Path) -> Any:
        import torch

        if (path / _STATE).exists():
            return torch.load(path / _STATE, map_location="cpu", weights_only=True)
        file = path / _FOLDER / _FILE if path.is_dir() else path
        device = None if torch.cuda.is_available() else "cpu"
        return torch.load(file, map_location=device, weights_only=False)

    def save_model(
        self, value: Any, folder: Path, pickle_module: Any = None, serialization_format: str = "pickle"
    ) -> Flavor:
        import torch

        inner = folder / _FOLDER
        inner.mkdir()
        named = _PICKLE_MODULE if pickle_module is None else pickle_module.__name__
        try:
            packages = _save(value, inner / _FILE, pickle_module)
        except Exception as error:  # A user's class may refer to objects that cannot be pickled.
            shutil.rmtree(inner)
            return _save_state(value, folder, error)
        (inner / "pickle_module_info.txt").write_text(named)
        return Flavor(
            "pytorch",
            {"model_data": _FOLDER, "pytorch_version": str(torch.__version__), "code": None},
            {
                "loader_module": "mlflow.pytorch",
                "data": _FOLDER,
                "pickle_module_name": named,
                "model_config": {"device": None},
            },
            ("torch", "cloudpickle" if pickle_module is None else named.partition(".")[0], *packages),
        )

    def prepare(self, value: Any, example: Any) -> Any:
        import numpy as np

        array = example.to_numpy() if hasattr(example, "to_numpy") else np.asarray(example)
        floating = next((p for p in value.parameters() if p.is_floating_point()), None)
        if array.dtype.kind != "f" and hasattr(example, "to_numpy"):
            array = array.astype(np.float32)
        if array.dtype.kind == "f" and floating is not None:
            # MLflow passes data on unchanged. NumPy or the CPU may not support half precision.
            wide = str(floating.dtype) == "torch.float64"
            array = array.astype(np.float64 if wide else np.float32)
        return array

    def predict(self, copied: Any, example: Any) -> Any:
        import torch

        first = next(copied.parameters(), None)
        tensor = torch.from_numpy(example.copy())
        copied.eval()
        with torch.no_grad():
            answer = copied(tensor if first is None else tensor.to(first.device))
        return answer.float().cpu().numpy() if isinstance(answer, torch.Tensor) else None


def _save_state(value: Any, folder: Path, error: Exception) -> Flavor:
    """Write the weights of a model that cannot be pickled, and the source of its classes."""
    reraise_from_signal(error)
    import torch

    # The wrappers of `torch.compile` and of data parallelism would change the names of the weights.
    value = getattr(value, "_orig_mod", value)
    while isinstance(value, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
        value = value.module
    torch.save(value.state_dict(), folder / _STATE)
    sources, modules = [], {"torch"}
    parts = [type(part) for part in value.modules()]
    # Base classes come before the classes derived from them.
    for kind in dict.fromkeys(base for part in parts for base in reversed(part.__mro__)):
        root = kind.__module__.partition(".")[0]
        if root not in ("torch", "builtins"):
            modules.add(root)
            try:
                leave_pipe_unread(inspect.getfile(kind))
                sources.append(textwrap.dedent(inspect.getsource(kind)))
            except (OSError, TypeError):
                sources.append(f"# The source of {kind.__qualname__} is not in a file.\n")
    (folder / _SOURCE).write_text("\n\n".join(sources), encoding="utf-8")
    return Flavor(
        "pytorch_state_dict",
        {"data": _STATE, "source": _SOURCE, "model_class": f"{type(value).__module__}.{type(value).__qualname__}"},
        None,
        tuple(sorted(modules)),
        note=f"it cannot be pickled ({format_error(error)}); its weights are in {_STATE}, the source of its classes "
        f"in {_SOURCE}: create the object and call its load_state_dict(mlflow.pytorch.load_state_dict(uri))",
    )


def _save(value: Any, path: Path, module: Any = None) -> tuple[str, ...]:
    import torch

    value = getattr(value, "_orig_mod", value)  # The wrapper of `torch.compile` cannot be pickled.
    if isinstance(value, torch.jit.ScriptModule):
        value.save(path)
        return ()
    packages: set[str] = set()

    class Pickler(noting_pickler(module)):  # type: ignore[misc]
        def dump(self, obj: Any) -> None:
            super().dump(obj)
            packages.update(self.packages)

    # `torch.save` needs only this part of a pickle module.
    pickle_module = ModuleType(_PICKLE_MODULE)
    pickle_module.Pickler = Pickler  # type: ignore[attr-defined]
    torch.save(value, path, pickle_module=pickle_module)
    return tuple(sorted(packages))


module = _Module()
optimizer = _Optimizer()
