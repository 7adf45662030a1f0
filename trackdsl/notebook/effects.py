"""What code does besides writing names, as far as its text shows: it seeds, writes files, sets what modules do.

An effect has a name in brackets, which no variable has. It stands among the names that code reads and changes.
"""

from __future__ import annotations

import ast
import re
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
#: The values of all variables are read, or those of any: `**globals()`, `exec(text)`.
EVERYTHING = "<everything>"
#: Figures are drawn that matplotlib has as the current ones, or read from there.
FIGURES = "<figures>"
#: Functions of modules that show things, which set how all look, or add a method to another library: `tqdm.pandas()`.
_LOOKS = frozenset({
    "rc", "rcdefaults", "set_theme", "set_style", "set_palette", "set_context", "set_cmap", "use", "pandas",
})  # fmt: skip
READING_FIGURES = frozenset({"gcf", "gca", "savefig", "get_fignums"})
#: Begins the effects by which a module of the user may keep something, one for each module.
MODULE = "<module "
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
_NAMESPACES = frozenset({"globals", "locals", "vars"})
_LOCAL = re.compile(r"@(\w+)")
#: Functions that make all items of a generator expression before they return.
_CONSUMING = frozenset({
    "sum", "any", "all", "list", "tuple", "set", "frozenset", "dict", "sorted", "min", "max", "join", "Counter", "len",
    "array", "fromiter", "DataFrame", "Series", "update", "extend", "mean", "fsum", "prod", "deque",
})  # fmt: skip
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
_COPYING = frozenset({"copy", "sum", "mean", "score", "tolist", "item"})
#: The beginnings of names of functions that set something, and methods of containers that do.
_SETTING = ("set", "use_", "enable", "disable", "register", "configure", "reset_", "init_", "install")
ADDING = frozenset({
    "append", "insert", "extend", "update", "setdefault", "pop", "popitem", "remove", "clear", "add", "discard",
    "__setitem__", "__setattr__", "sort", "reverse", "appendleft",
})  # fmt: skip
_WRITING = frozenset({
    "write_text", "write_bytes", "makedirs", "mkdir", "dump", "save", "savez", "savez_compressed", "savetxt", "savefig",
    "chdir", "rename", "unlink", "remove", "rmtree", "copyfile", "copytree", "urlretrieve", "extractall", "to_csv",
    "to_parquet", "to_json", "to_pickle", "to_excel", "to_feather", "to_hdf", "to_sql", "write_csv", "write_parquet",
    "log_artifacts", "connect", "commit", "executemany", "flush", "write", "writelines", "writerow", "writerows",
    "writestr", "create_engine",
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
    "connect",
    "extract",
    "memmap",
    "ZipFile",
    "TarFile",
    "File",
    "Dataset",
    "create_engine",
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


#: The use of what a function returns by changing it.
RESULT = "result"


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
    return name.startswith(_SETTING) or (name in ADDING and deep)


def effects_of(call: ast.Call) -> Iterator[str]:
    """The side effects of a call, as far as its text shows: it seeds, or writes files."""
    name = called_name(call)
    if "seed" in name.lower():
        yield f"{SEED}{ast.unparse(call.func)}>"
    if name in _LOOKS:
        yield PROCESS
    if name in _WRITING or _closes(call) or _opens_to_write(call):
        yield FILES
        if any(isinstance(one, ast.Constant) and str(one.value).endswith(".py") for one in ast.walk(call)):
            yield MODULE_FILES


def is_namespace(node: ast.AST) -> bool:
    """Whether an expression is the dictionary of all variables: `globals()`."""
    if not isinstance(node, ast.Call) or node.args or node.keywords:
        return False
    return isinstance(node.func, ast.Name) and node.func.id in _NAMESPACES


def local_names(call: ast.Call) -> set[str]:
    """The variables in the texts of a call such as `df.query("a > @least")`."""
    texts = [one.value for one in ast.walk(call) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return {name for text in texts for name in _LOCAL.findall(text)}


def consumes(call: ast.Call) -> bool:
    """Whether a call makes all items of its arguments before it returns."""
    return called_name(call) in _CONSUMING


def reads_files(call: ast.Call) -> bool:
    """Whether a call may read a file."""
    return called_name(call).startswith(_LOADING)


def logs(call: ast.Call) -> bool:
    """Whether a call records something in the run around it."""
    return called_name(call).startswith(_LOGGING)


def shared_by(node: ast.expr | None, *, copies: bool = False) -> Iterator[str]:
    """The names whose objects the value of an expression may contain or be.

    Args:
        node: the expression.
        copies: whether it may be a copy of an object that has the same parts: `list(a)`, `a.copy()`, `a + b`.
    """
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Call):
        name = called_name(node)
        fresh = name == "deepcopy" or not changes_arguments(node) or (name in _COPYING and not copies)
        parts = [] if fresh else [node.func, *node.args, *(one.value for one in node.keywords)]
        for part in parts:
            yield from shared_by(part, copies=copies)
    elif isinstance(node, ast.BinOp) and not copies:
        return
    elif isinstance(node, ast.Lambda):  # What gets it may call it later.
        own = {one.arg for one in ast.walk(node.args) if isinstance(one, ast.arg)}
        yield from {one.id for one in ast.walk(node.body) if isinstance(one, ast.Name)} - own
    elif not isinstance(node, (ast.Constant, ast.UnaryOp, ast.Compare, ast.JoinedStr)):
        for child in ast.iter_child_nodes(node) if node is not None else ():
            if isinstance(child, ast.comprehension):
                yield from shared_by(child.iter, copies=copies)
            elif isinstance(child, ast.expr):
                yield from shared_by(child, copies=copies)


def base_name(node: ast.AST) -> str:
    """The name at the beginning of an expression: `np` of `np.random.rand()`; empty if there is none."""
    if isinstance(node, ast.Call):
        return base_name(node.func)
    if isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred)):
        return base_name(node.value)
    return node.id if isinstance(node, ast.Name) else ""


def inner_call(node: ast.AST) -> str:
    """The function of which the result is at the beginning of an expression: `f` of `f(1)[0].a`; empty without one."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred)):
        node = node.value
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _closes(call: ast.Call) -> bool:
    return called_name(call) == "close" and not call.args and base_name(call.func) != "plt"


def _opens_to_write(call: ast.Call) -> bool:
    """Whether a call has a mode as `open` has it. If that is a variable, it may be one for writing."""
    name = called_name(call)
    modes = [one.value for one in call.keywords if one.arg == "mode"]
    given = [*(call.args[1:2] if name == "open" or name[:1].isupper() else []), *modes]
    if isinstance(call.func, ast.Attribute) and name == "open":  # `path.open("w")`
        given += call.args[:1]
    if name == "open" and any(isinstance(one, ast.Name) for one in call.args[1:2]):
        return True
    return any(
        isinstance(one, ast.Constant)
        and isinstance(one.value, str)
        and set("wax+") & set(one.value)
        and len(one.value) < 5
        for one in given
    )
