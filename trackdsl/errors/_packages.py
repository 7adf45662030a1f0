"""Which package to install for a module that is missing."""

from __future__ import annotations

#: Modules that come in a package of another name. Those of trackdsl's own extras are installed by the extra.
_PACKAGES = {
    "MySQLdb": "mysqlclient",
    "PIL": "pillow",
    "azure": "azure-storage-blob azure-identity",
    "cv2": "opencv-python",
    "dask": "trackdsl[dask]",
    "distributed": "trackdsl[dask]",
    "google": "google-cloud-storage",
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "pyspark": "trackdsl[spark]",
    "ray": "trackdsl[ray]",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def install_command(error: ImportError) -> str | None:
    """The command that installs the module that an import did not find; None if the import failed for another reason.

    >>> install_command(ModuleNotFoundError("No module named 'PIL'", name="PIL"))
    "pip install 'pillow'"
    """
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    module = error.name.partition(".")[0]
    return f"pip install {' '.join(repr(package) for package in _PACKAGES.get(module, module).split())}"


def explained(error: ModuleNotFoundError, what: str) -> ModuleNotFoundError:
    """The error with a message that says what needs the module and how to install it.

    >>> str(explained(ModuleNotFoundError("No module named 'optuna'", name="optuna"), "trackdsl.integrations.optuna"))
    "trackdsl.integrations.optuna needs optuna: pip install 'optuna'"
    """
    return ModuleNotFoundError(f"{what} needs {error.name}: {install_command(error)}", name=error.name)
