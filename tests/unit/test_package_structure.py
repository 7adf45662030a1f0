"""The structure of the package: the direction of imports, the examples in docstrings, the map in CONTRIBUTING."""

from __future__ import annotations

import ast
import contextlib
import doctest
import functools
import importlib
import inspect
import pickle
import pkgutil
import re
import rlcompleter
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cloudpickle
import grimp
import pytest

import trackdsl
import trackdsl.testing

from .syntax_trees import PACKAGE, source_of, trees

ROOT = PACKAGE.parent

METHODS = [name for name in trackdsl.__all__ if name.startswith(("log_", "set_"))]
#: Every module, and whether its docstrings have examples.
MODULES = {
    name: ">>>" in Path(str(finder.find_spec(name, None).origin)).read_text()  # type: ignore[union-attr]
    for finder, name, _ in pkgutil.walk_packages([str(PACKAGE)], "trackdsl.")
    if not name.endswith("__main__")
}


def _imports(tree: ast.Module) -> Iterator[str]:
    """The modules that a file imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_only_the_sink_and_the_tools_import_mlflow() -> None:
    """MLflow is imported by the sink, by commands that read it back, and where the program has imported it itself."""
    users = {
        name
        for name, tree in trees("mlflow")
        if any(imported.split(".")[0] == "mlflow" for imported in _imports(tree))
        and "mlflow_bridge/" not in name  # A program that imports no MLflow imports none of it, see below.
    }
    assert users <= {
        "_runs/model_registry.py",
        "_runs/fetching.py",
        "_server/request_options.py",  # Where one of MLflow's plugins has to sign requests.
        "delivery/mlflow_client/_sink.py",
        "delivery/mlflow_client/_connection.py",
        "delivery/mlflow_client/_errors.py",
        "delivery/mlflow_client/_files.py",
        "delivery/mlflow_client/_traces.py",
        "delivery/mlflow_client/_model_signature.py",
        "delivery/mlflow_client/_models.py",
        "delivery/server/plugin.py",  # In the processes of an MLflow server.
        "delivery/mlflow_client/_sqlite_creation.py",
        "query/_grammar.py",
        "query/_mlflow_client.py",
        "query/_mlflow_search.py",
        "store_format/logged_models.py",
    }
    # In the delivery thread of a program a read by one of these would wait for itself.
    from trackdsl.mlflow_bridge._own_writes import OURS

    modules = {"trackdsl." + user.removesuffix(".py").replace("/", ".") + "." for user in users}
    assert {name for name in modules if not name.startswith(OURS)} == {"trackdsl._server.request_options."}


@pytest.mark.parametrize("name", ["trackdsl", *(name for name, examples in MODULES.items() if examples)])
def test_examples_in_docstrings(name: str) -> None:
    """The examples in docstrings give the output that they show."""
    assert doctest.testmod(_import(name)).failed == 0


def test_every_module_can_be_imported() -> None:
    """Every module can be imported, except those of libraries that are not installed."""
    for name in MODULES:
        with contextlib.suppress(pytest.skip.Exception):
            assert _import(name).__name__ == name


def _import(name: str) -> ModuleType:
    """A module; the test is skipped if it needs an extra that is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in ("distributed", "optuna", "pyspark", "ray", "torch"):
            raise
        pytest.skip(f"needs {error.name}, which is an extra")


def test_the_package_stays_easy_to_survey() -> None:
    """The package has at most 25 entries at its top level; no chain of imports, there or in delivery, has over 12."""
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 25, sorted(entries)
    graph = grimp.build_graph("trackdsl", exclude_type_checking_imports=False, cache_dir=None)
    for package in ("trackdsl", "trackdsl.delivery"):
        chain = _longest_chain(_imports_between_entries(graph, package))
        assert 2 < len(chain) <= 12, " → ".join(chain)


def _imports_between_entries(graph: grimp.ImportGraph, package: str) -> dict[str, set[str]]:
    """Child of a package → the children that it imports, inside functions and for type checkers too.

    An import of the package itself counts as an import of all that its `__init__` imports.
    """
    inside = graph.find_descendants(package)
    offered = graph.find_modules_directly_imported_by(package)
    found: dict[str, set[str]] = {child: set() for child in graph.find_children(package)}
    for module in inside:
        imported = graph.find_modules_directly_imported_by(module)
        if package in imported:
            imported = imported | offered
        child = _child(module, package)
        found[child].update({_child(name, package) for name in imported & inside} - {child})
    return found


def _child(module: str, package: str) -> str:
    """The child of a package that a module is, or is in."""
    return f"{package}.{module.removeprefix(package + '.').partition('.')[0]}"


def _longest_chain(imports: dict[str, set[str]]) -> list[str]:
    """The longest chain of imports, from the importer to the imported."""

    @functools.cache
    def below(entry: str) -> list[str]:
        return [entry, *max((below(each) for each in sorted(imports[entry])), key=len, default=[])]

    return max((below(entry) for entry in sorted(imports)), key=len)


def test_everything_public_has_a_docstring() -> None:
    """`__all__` is sorted and complete, and everything in it has a docstring."""
    assert trackdsl.__all__ == sorted(trackdsl.__all__)
    for name in trackdsl.__all__:
        assert name == "__version__" or getattr(trackdsl, name).__doc__, name


@pytest.mark.parametrize("name", [name for name in trackdsl.__all__ if name != "__version__"])
def test_public_objects_belong_to_the_package(name: str) -> None:
    """Everything public has `trackdsl` as its module, in pickles too."""
    value = getattr(trackdsl, name)
    assert value.__module__ == "trackdsl"
    for written in (pickle.dumps(value), cloudpickle.dumps(value)):
        assert b"trackdsl." not in written
        assert pickle.loads(written) is value


@pytest.mark.parametrize("name", ["", ".handlers", ".query", ".settings", ".testing"])
def test_public_objects_show_no_private_module(name: str) -> None:
    """Classes and functions of public modules name a public module that has them, in their signatures too."""
    public = importlib.import_module(f"trackdsl{name}")
    for value in (getattr(public, each) for each in public.__all__):
        module = getattr(value, "__module__", "")
        if module.partition(".")[0] == "trackdsl":
            assert "._" not in module
            assert getattr(importlib.import_module(module), value.__qualname__) is value
        if inspect.isroutine(value):
            assert "._" not in str(inspect.signature(value))


def test_completion_offers_what_runs_document() -> None:
    """`dir(run)` has the methods and attributes that the help of `Run` and the guides name, and no others."""
    documented = {"began", "end", "experiment", "id", "name", "parent", "path", "run_id", "url", *METHODS}
    with trackdsl.testing.capture_runs(), trackdsl.stage("s") as run:
        assert set(dir(run)) == documented - {"log_stream"}
    attributes = str(inspect.getdoc(trackdsl.Run)).partition("Attributes:")[2]
    for name in dir(run):
        assert getattr(trackdsl.Run, name).__doc__ or f"    {name}: " in attributes


def test_completers_that_read_classes_offer_the_same() -> None:
    """Python's own completer and IPython's without jedi, which read an object's classes too, offer no internals."""
    dir2 = pytest.importorskip("IPython.utils.dir2").dir2
    with trackdsl.testing.capture_runs(), trackdsl.stage("s") as run:
        offered = rlcompleter.Completer({"run": run}).attr_matches("run.")
        assert {name.removeprefix("run.").rstrip("()") for name in offered} == set(dir(run))
        assert {name for name in dir2(run) if not name.startswith("_")} == set(dir(run))
    assert {name for name in dir(trackdsl.Run) if not name.startswith("_")} == set(dir(run))


def test_wrong_arguments_name_the_method_of_run() -> None:
    """The error for a wrong argument of a method names `Run`, whichever class defines the method."""
    with (
        trackdsl.testing.capture_runs(),
        trackdsl.stage("s") as run,
        pytest.raises(TypeError, match=r"^Run\.log_metrics"),
    ):
        run.log_metrics({}, nothing=1)  # type: ignore[call-arg]


def test_completion_offers_public_names_alone() -> None:
    """`dir(trackdsl)`, from which completion comes, has everything public and nothing private."""
    assert set(trackdsl.__all__) <= set(dir(trackdsl))
    assert [name for name in dir(trackdsl) if name.startswith("_")] == ["__version__"]
    assert [name for name in dir(trackdsl) if not hasattr(trackdsl, name)] == []


@pytest.mark.parametrize("name", [name for name in METHODS if hasattr(trackdsl.Run, name)])
def test_functions_on_the_current_run_are_the_methods_of_runs(name: str) -> None:
    """A function and the method of the same name have the same parameters and the same help."""
    function, method = getattr(trackdsl, name), getattr(trackdsl.Run, name)
    assert [*inspect.signature(function).parameters] == [*inspect.signature(method).parameters][1:]
    of_method = inspect.getdoc(method).partition("\n\n")[2]  # type: ignore[union-attr]
    assert inspect.getdoc(function).partition("\n\n")[2] == of_method.replace(">>> run.", ">>> ")  # type: ignore[union-attr]


@pytest.mark.parametrize("decorator", ["experiment", "stage", "track_returns"])
def test_a_decorator_shows_its_options(decorator: str) -> None:
    """The signature that editors show has every option that the help names."""
    fn = getattr(trackdsl, decorator)
    arguments = str(inspect.getdoc(fn)).partition("Raises:")[0]
    named = {name.lstrip("*") for name in re.findall(r"^    (\*{0,2}\w+): ", arguments, re.MULTILINE)}
    assert named == set(inspect.signature(fn).parameters)


def _assigned(tree: ast.Module) -> list[ast.expr]:
    """Everything that a module assigns to or deletes, by statements and by `setattr` and `delattr`."""
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.Delete)):
            found += node.targets
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign, ast.For, ast.AsyncFor)):
            found.append(node.target)
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            found.append(node.optional_vars)
        elif isinstance(node, ast.Call) and _called(node) in ("setattr", "delattr"):
            found.append(ast.Attribute(node.args[0], "?"))
    for target in found:
        if isinstance(target, (ast.Tuple, ast.List)):
            found += target.elts
    return found


def _called(call: ast.Call) -> str | None:
    """The name of a function that is called by its name."""
    return call.func.id if isinstance(call.func, ast.Name) else None


def _sets_of_others(tree: ast.Module) -> list[str]:
    """Where a file sets an attribute, or an item of an attribute, of what it imports from this package."""
    ours = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
        if (getattr(node, "module", None) or alias.name).partition(".")[0] == "trackdsl"
    }
    found = []
    for target in _assigned(tree):
        inner: ast.expr = target
        while isinstance(inner, (ast.Attribute, ast.Subscript, ast.Starred, ast.Call)):
            if not isinstance(inner, ast.Call):
                inner = inner.value
            elif _called(inner) == "vars" and inner.args:
                inner = inner.args[0]
            else:
                break
        if inner is not target and isinstance(inner, ast.Name) and inner.id in ours:
            found.append(ast.unparse(target))
    return found


def test_no_module_sets_attributes_of_another() -> None:
    """Only the functions of a module change what the module or its objects keep."""
    assert {f"{name}: {target}" for name, tree in trees() for target in _sets_of_others(tree)} == set()


@pytest.mark.parametrize(
    "statement",
    ["state.x = 1", "state.x += 1", "state.x: int = 1", "del state.x", "a, state.x = 1, 2", "state.x['k'] = 1",
     "setattr(state, 'x', 1)", "for state.x in (): pass", "state['k'] = 1", "with open('f') as state.x: pass",
     "vars(state)['x'] = 1", "state.__dict__['x'] = 1", "setattr(state.inner, 'x', 1)"],
)  # fmt: skip
def test_every_way_to_set_an_attribute_is_found(statement: str) -> None:
    """The check above sees each kind of statement, for modules and for objects, and nothing else."""
    for imported in ("from trackdsl._core import state", "import trackdsl.state as state"):
        assert len(_sets_of_others(ast.parse(f"{imported}\n{statement}"))) == 1
    assert not _sets_of_others(ast.parse(f"from elsewhere import state\n{statement}"))
    assert not _sets_of_others(ast.parse("from trackdsl._core import state\nprint(state.x)\nx = state.x"))


NOTES = sorted([*(ROOT / ".github").glob("CONTRIBUTING.md"), *(ROOT / ".github" / "design").glob("*.md")])


@pytest.mark.parametrize("note", NOTES, ids=lambda note: note.name)
def test_notes_for_developers_name_what_exists(note: Path) -> None:
    """Every file that a note names or links to is there, and every private name is one of the package."""
    text = note.read_text()
    named = re.findall(r"`([\w./]+\.(?:py|toml|md|sh))`", text) + re.findall(r"\]\(([\w./-]+)\)", text)
    ours = [name for name in named if not name.startswith("Lib/")]  # Of CPython's source.
    assert ours
    assert [name for name in ours if not any((at / name).exists() for at in (PACKAGE, ROOT, note.parent))] == []
    assert set(re.findall(r"`(_[a-zA-Z]\w*)`", text)) - _private_names() == set()


@functools.cache
def _private_names() -> set[str]:
    return {name for path in PACKAGE.rglob("*.py") for name in re.findall(r"\b_[a-zA-Z]\w*", source_of(path))}


@pytest.mark.skipif(not NOTES, reason="the notes are not part of the source distribution")
def test_the_map_is_complete() -> None:
    """CONTRIBUTING has a row for each package and public module, and the same layers as the checks of imports."""
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
    rows = " ".join(line.split("|")[1] for line in text.splitlines() if line.startswith("|"))
    there = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {name for name in there if f"`{name}`" not in rows} == {"__init__.py"}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    for contract in contracts:
        assert contract["type"] != "layers" or "\n".join(contract["layers"]) in text
