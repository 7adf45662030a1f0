"""Old names of modules, which pickles of earlier versions contain."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

#: Modules that pickles may name: old name → new name, both inside the package.
_MOVED = {
    "_blocks": "_decorate.blocks",
    "_call": "_decorate.call",
    "_context": "_core.context",
    "_datasets": "_recording.datasets",
    "_decorated_object": "_decorate.callable_proxy",
    "_decorators": "_decorate.decorators",
    "_deferred": "_decorate.deferred",
    "_generator_body": "_decorate.generators",
    "_last_run": "_decorate.last_run",
    "_log": "_api.log",
    "_methods": "_decorate.descriptors",
    "_options": "_decorate.options",
    "_propagation": "distributed._contexts",
    "_quiet": "_core.suppression",
    "_recorded_model": "_runs.recorded_model",
    "_returns": "_decorate.returns",
    "_roots": "_decorate.parentage",
    "_run": "_runs.run",
    "_shapes_like_importlib_bootstrap": "_decorate.wrappers_importlib_bootstrap",
    "_signature": "_decorate.arguments",
    "_sorting": "_recording.sorting",
    "_stack": "_core.recursion_limit",
    "_steps": "_api.steps",
    "_target": "journal._target",
    "_word": "_core.missing_call",
}


class _Finder:
    """Finds moved modules by their old names. It is the last finder, so it costs other imports nothing.

    It has no base class, as `importlib.abc` takes milliseconds to import.
    """

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != "trackdsl" or name not in _MOVED:
            return None
        return ModuleSpec(fullname, self)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Have an ordinary module made."""

    def exec_module(self, module: ModuleType) -> None:
        # A module may replace itself while it is imported.
        sys.modules[module.__name__] = importlib.import_module(f"trackdsl.{_MOVED[module.__name__.partition('.')[2]]}")


def install() -> None:
    """Make the old names importable."""
    sys.meta_path.append(_Finder())
