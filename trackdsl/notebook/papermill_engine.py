"""papermill's engine for notebooks that load the extension: parameters for their root run, and the executed notebook.

papermill finds this module by an entry point and imports it, so it imports little, and nothing of papermill. A notebook
that does not load the extension is executed as by papermill's own engine, but its kernel has one variable more.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from trackdsl.errors import format_error, report, reraise_from_signal

#: The artifact with the executed notebook.
EXECUTED = "executed.ipynb"
#: Code that begins an experiment.
_BEGINS = re.compile(
    r"^\s*%{1,2}experiment[ \t]+\w|\bexperiment\(|@(?:\w+\.)?experiment\b|\bstart_(?:logging|run)\(", re.MULTILINE
)
#: Code that loads the extension, with `TRACKDSL_NOTEBOOK=1` also by the import.
_LOADS = re.compile(r"^\s*(%(re)?load_ext[ \t]+trackdsl|(import|from)[ \t]+trackdsl\b)", re.MULTILINE)


class TrackdslEngine:
    """papermill's engine `nbclient`, which also sends trackdsl in the kernel what it executes."""

    @staticmethod
    def execute_notebook(nb: Any, kernel_name: str, **options: Any) -> Any:
        """Execute a notebook, as papermill's `Engine.execute_notebook` does."""
        from trackdsl.notebook.loading import is_switched_on
        from trackdsl.notebook.papermill import VARIABLE, PapermillExecution, roots_in

        path = None
        with _guarded("sends nothing to the kernel of a notebook"):
            descriptor, path = tempfile.mkstemp(prefix="trackdsl-papermill-")
            os.close(descriptor)
            execution = PapermillExecution(
                notebook=os.path.abspath(str(options["input_path"])) if options.get("input_path") else "",
                parameters=_parameters(nb),
                begins=not any(_BEGINS.search(cell.source) for cell in nb.cells if cell.cell_type == "code"),
            )
            execution.write(path)
            loads = is_switched_on() and not _is_loaded(nb)
            options.setdefault("kernel_manager_class", _manager_with({VARIABLE: path}, loads=loads))
        executed = nb  # With its outputs, also if the kernel dies.
        try:
            executed = _nbclient().execute_notebook(nb, kernel_name, **options)
        finally:
            if path is not None:
                with _guarded("cannot keep an executed notebook"):
                    try:
                        roots = roots_in(path)
                    finally:
                        os.unlink(path)
                    if roots:
                        _keep(executed, roots)
        return executed

    @staticmethod
    def nb_kernel_name(nb: Any, name: str | None = None) -> Any:
        """See papermill's `Engine`."""
        return _nbclient().nb_kernel_name(nb, name)

    @staticmethod
    def nb_language(nb: Any, language: str | None = None) -> Any:
        """See papermill's `Engine`."""
        return _nbclient().nb_language(nb, language)


def _nbclient() -> Any:
    from papermill.engines import NBClientEngine

    return NBClientEngine


@contextlib.contextmanager
def _guarded(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reraise_from_signal(error)
        report("papermill", f"trackdsl {what}: {format_error(error)}")


def _is_loaded(notebook: Any) -> bool:
    """Whether a cell of a notebook loads the extension."""
    return any(_LOADS.search(cell.source) for cell in notebook.cells if cell.cell_type == "code")


def _manager_with(variables: dict[str, str], *, loads: bool) -> type[Any]:
    """A kernel manager for a notebook's kernel.

    Args:
        variables: more environment variables of its kernels.
        loads: whether IPython loads the extension before the first cell.
    """
    from jupyter_client.manager import AsyncKernelManager

    class Manager(AsyncKernelManager):  # type: ignore[misc] # without its types
        async def _async_pre_start_kernel(self, **options: Any) -> Any:
            options["env"] = {**(options.get("env") or os.environ), **variables}
            if loads and getattr(self.kernel_spec, "language", "") == "python":
                options["extra_arguments"] = [*(options.get("extra_arguments") or []), "--ext=trackdsl"]
            return await super()._async_pre_start_kernel(**options)

        pre_start_kernel = _async_pre_start_kernel

    return Manager


def _parameters(notebook: Any) -> dict[str, Any]:
    """The parameters of a notebook: literals of the cell tagged `parameters`, and the values that replace them."""
    from trackdsl.notebook.names import names_of, parsed

    found: dict[str, Any] = {}
    for cell in notebook.cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", ()):
            found.update(names_of(parsed(cell.source)).literals)
    return {**found, **notebook.metadata.get("papermill", {}).get("parameters", {})}


def _keep(notebook: Any, roots: list[tuple[str, str, str, str]]) -> None:
    """Keep a notebook with its outputs as an artifact of its root runs: masked, bounded, without scripts."""
    from trackdsl._recording import artifacts
    from trackdsl._runs.run import Run
    from trackdsl.journal._target import target_for

    kept = _kept(notebook)
    for id_, name, uri, cwd in roots:
        run = Run(bytes.fromhex(id_), name, None, name, None, target_for(uri, cwd))
        run.request_lookup()
        artifacts.write_structure(run, kept, EXECUTED)


def _kept(notebook: Any) -> dict[str, Any]:
    """A notebook as far as it is kept; the values of structures are masked where they are written."""
    import json

    from trackdsl._recording.printed import tail_of
    from trackdsl.notebook.outputs import kept_data

    whole: dict[str, Any] = json.loads(json.dumps(notebook))
    for cell in whole["cells"]:
        for output in cell.get("outputs", ()):
            if output["output_type"] == "stream":
                output["text"] = tail_of(output["text"])
            elif "data" in output:
                output["data"] = kept_data(output["data"])
    return whole


def _replace_default(papermill: Any) -> None:
    """Make the engine papermill's default, unless that is another one than its own."""
    if papermill.papermill_engines.get_engine() is papermill.NBClientEngine:
        papermill.papermill_engines.register(None, TrackdslEngine)


if "papermill.engines" in sys.modules:  # It is being imported, and loads its entry points.
    _replace_default(sys.modules["papermill.engines"])
