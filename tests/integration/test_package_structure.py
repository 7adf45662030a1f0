"""What the package imports in a fresh process."""

from __future__ import annotations

import subprocess
import sys

from tests.unit.test_package_structure import PACKAGE

ROOT = PACKAGE.parent


def test_the_bridge_waits_for_mlflow() -> None:
    """Installing the bridge imports no MLflow, and nothing of the bridge that does."""
    program = (
        "import sys, trackdsl.mlflow_bridge as bridge; bridge.install(); bridge.install(); "
        "print([name for name in sys.modules if name.split('.')[0] == 'mlflow' or name.startswith(bridge.__name__)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['trackdsl.mlflow_bridge']\n"


def test_objects_of_modules_that_are_imported_late_belong_to_the_package() -> None:
    """A handle of a model and settings are public objects also in a program that never names their classes."""
    program = (
        "import trackdsl, trackdsl._recording.recorded_model as models, trackdsl._config.model as settings; "
        "print(models.RecordedModel.__module__, settings.Settings.__module__, vars(trackdsl).get('RecordedModel'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "trackdsl trackdsl None\n"
