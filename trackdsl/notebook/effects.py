"""What code does besides writing names, as far as its text shows: it seeds, writes files, sets what modules do.

An effect has a name in brackets, which no variable has. It stands among the names that code reads and changes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

#: Begins the effects by which random numbers begin anew, one for each function: what draws some later needs them, and
#: all that has drawn some since.
SEED = "<seed "
#: Something in the process is set, which later code may need.
PROCESS = "<process>"
#: Files are written, or read.
FILES = "<files>"
#: The same for files with Python code.
MODULE_FILES = "<modules>"
#: What a program calls for `%tracked`, with the function.
TRACKED = "_tracked"
#: Any name may be written: `from x import *`, `exec`.
ANY_NAME = "*"
#: Stands for the name of what is called if that is not known at top level: a method of a local variable.
UNKNOWN = "?"
#: Stands for a lambda without a name among what is called.
LAMBDA = "<lambda>"
#: Modules that show things: code is not needed because it calls them.
SHOWING = frozenset({"matplotlib", "IPython", "plotly", "seaborn", "altair", "trackdsl", "tqdm", "time", "pprint"})
#: Modules whose functions return a value and change nothing else, but for what is called as a statement.
PURE = frozenset({
    "numpy", "pandas", "polars", "scipy", "sklearn", "torch", "math", "statistics", "json", "re", "itertools",
    "functools", "collections", "datetime", "pathlib", "dataclasses", "typing", "copy", "xgboost", "lightgbm",
    "pyarrow", "random", "operator", "string", "decimal", "fractions", "hashlib",
})  # fmt: skip
#: Modules that draw no random numbers.
NOT_RANDOM = SHOWING | frozenset({
    "math", "statistics", "json", "re", "itertools", "functools", "collections", "datetime", "pathlib", "dataclasses",
    "typing", "copy", "operator", "string", "decimal", "fractions", "hashlib", "os", "sys", "pyarrow", "warnings",
})  # fmt: skip
_ANY_NAME = frozenset({"exec", "eval", "globals", "locals", "vars", "setattr"})
#: Functions that leave their arguments as they are, and methods that leave their object so.
_READING = frozenset({
    "print", "len", "type", "isinstance", "id", "repr", "str", "int", "float", "bool", "round", "abs", "format", "hash",
    "display", "help", "dir", "callable", "hasattr",
})  # fmt: skip
#: Methods that leave their object as it is, for all types that have them but classes of the notebook.
READING_METHODS = frozenset({
    "head", "describe", "info", "copy", "items", "keys", "values", "mean", "sum", "std", "var", "min", "max", "median",
    "nunique", "unique", "value_counts", "groupby", "isna", "isnull", "notna", "corr", "tolist", "to_numpy", "to_dict",
    "astype", "item", "format", "startswith", "endswith", "strip", "lower", "upper", "shape",
})  # fmt: skip
#: Methods that leave objects of some types as they are, and change others: `dict.get`, `Queue.get`.
_OFTEN_READING = frozenset({"get", "plot", "hist", "tail", "count", "split", "join", "index", "replace"})
_COPYING = frozenset({"copy", "deepcopy", "sum", "mean", "score", "tolist", "item"})
#: The beginnings of names of functions that set something, and methods of containers that do.
_SETTING = ("set_", "use_", "enable", "disable", "register", "configure", "reset_", "init_", "setlocale", "install")
_ADDING = frozenset({
    "append", "insert", "extend", "update", "setdefault", "pop", "popitem", "remove", "clear", "add", "discard",
    "__setitem__", "__setattr__", "sort", "reverse", "appendleft",
})  # fmt: skip
_WRITING = frozenset({
    "write_text", "write_bytes", "makedirs", "mkdir", "dump", "save", "savez", "savez_compressed", "savetxt", "savefig",
    "chdir", "rename", "unlink", "remove", "rmtree", "copyfile", "copytree", "urlretrieve", "extractall", "to_csv",
    "to_parquet", "to_json", "to_pickle", "to_excel", "to_feather", "to_hdf", "to_sql", "write_csv", "write_parquet",
    "log_artifacts",
})  # fmt: skip
_LOADING = (
    "read",
    "load",
    "open",
    "exists",
    "listdir",
    "glob",
    "iterdir",
    "is_file",
    "scan_",
    "log_artifact",
    "run_path",
)
_LOGGING = ("log_", "set_tag")


def called_name(call: ast.Call) -> str:
    """The last part of the name of what is called: `zeros` of `np.zeros(3)`; empty if it has none."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def changes_arguments(call: ast.Call) -> bool:
    """Whether a call may change the objects that it is given. `%tracked` calls the function, no more."""
    if any(one.arg == "file" for one in call.keywords):  # `print(x, file=log)`
        return True
    return not (isinstance(call.func, ast.Name) and call.func.id in {*_READING, TRACKED})


def changes_object(call: ast.Call) -> bool:
    """Whether the call of a method may change the object that it belongs to, whatever its type."""
    if any(one.arg == "inplace" for one in call.keywords):
        return True
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, (ast.Constant, ast.JoinedStr)):
        return False
    return called_name(call) not in READING_METHODS | _OFTEN_READING


def use(what: str, path: str) -> str:
    """The effect of using an object in a way that changes only some types: by a method, `iter` or `call`."""
    return f"{what}<{path}>"


def used(effect: str) -> tuple[str, str]:
    """How an effect uses an object, and the path to that; empty for other effects.

    >>> used("get<d['a']>"), used("<process>")
    (('get', "d['a']"), ('', ''))
    """
    what, _, path = effect.partition("<")
    return (what, path[:-1]) if what and path.endswith(">") else ("", "")


def path_of(node: ast.AST) -> str:
    """An expression that reads a name, attributes and items with literal keys; empty for others."""
    inner = node
    while isinstance(inner, (ast.Attribute, ast.Subscript)):
        if isinstance(inner, ast.Subscript) and not isinstance(inner.slice, ast.Constant):
            return path_of(inner.value)
        inner = inner.value
    return ast.unparse(node) if isinstance(inner, ast.Name) else ""


def part_of(node: ast.AST) -> str:
    """The name at the beginning of what may be a part of a module: `sys.path`, `decimal.getcontext()`."""
    if isinstance(node, ast.Call):
        if not called_name(node).startswith("get") and base_name(node) != "__import__":
            return ""
        return base_name(node)
    return base_name(node) if isinstance(node, (ast.Attribute, ast.Subscript)) and path_of(node) else ""


def sets(call: ast.Call) -> bool:
    """Whether a call sets something of a module, if it is a function or a part of one."""
    name = called_name(call)
    deep = isinstance(call.func, ast.Attribute) and not isinstance(call.func.value, ast.Name)
    return name.startswith(_SETTING) or (name in _ADDING and deep)


def effects_of(call: ast.Call) -> Iterator[str]:
    """The side effects of a call, as far as its text shows: it seeds, or writes files."""
    name = called_name(call)
    if "seed" in name.lower():
        yield f"{SEED}{ast.unparse(call.func)}>"
    if name in _WRITING or (name == "open" and _opens_to_write(call)):
        yield FILES
        if any(isinstance(one, ast.Constant) and str(one.value).endswith(".py") for one in ast.walk(call)):
            yield MODULE_FILES


def may_write_any_name(call: ast.Call) -> bool:
    """Whether a call may write variables that the code does not name."""
    return isinstance(call.func, ast.Name) and call.func.id in _ANY_NAME


def reads_files(call: ast.Call) -> bool:
    """Whether a call may read a file."""
    return called_name(call).startswith(_LOADING)


def logs(call: ast.Call) -> bool:
    """Whether a call records something in the run around it."""
    return called_name(call).startswith(_LOGGING)


def shared_by(node: ast.expr | None) -> Iterator[str]:
    """The names whose objects the value of an expression may contain or be."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Call):
        copies = called_name(node) in _COPYING or not changes_arguments(node)
        parts = [] if copies else [node.func, *node.args, *(one.value for one in node.keywords)]
        for part in parts:
            yield from shared_by(part)
    elif not isinstance(node, (ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare, ast.JoinedStr, ast.Lambda)):
        for child in ast.iter_child_nodes(node) if node is not None else ():
            if isinstance(child, ast.comprehension):
                yield from shared_by(child.iter)
            elif isinstance(child, ast.expr):
                yield from shared_by(child)


def base_name(node: ast.AST) -> str:
    """The name at the beginning of an expression: `np` of `np.random.rand()`; empty if there is none."""
    if isinstance(node, ast.Call):
        return base_name(node.func)
    if isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred)):
        return base_name(node.value)
    return node.id if isinstance(node, ast.Name) else ""


def _opens_to_write(call: ast.Call) -> bool:
    given = [*call.args[1:2], *(one.value for one in call.keywords if one.arg == "mode")]
    if isinstance(call.func, ast.Attribute):  # `path.open("w")`
        given += call.args[:1]
    return any(
        isinstance(one, ast.Constant)
        and isinstance(one.value, str)
        and set("wax+") & set(one.value)
        and len(one.value) < 5
        for one in given
    )
