"""The lines of code, as Python counts them: split, indented, and with the last expression apart."""

from __future__ import annotations

import ast
import re
import textwrap

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_SILENCED = re.compile(r"[ \t\f]*;")
#: The same where the statement is not known: at the end, before comments.
_SILENCED_END = re.compile(r";[ \t]*(?:#[^'\"\n]*)?(?:\n\s*(?:#[^\n]*\s*)*)?\Z")


def lines_of(code: str) -> list[str]:
    r"""The lines of code with their ends. Python counts a form feed, for example, as part of a line.

    >>> lines_of("a\x0cb\r\nc")
    ['a\x0cb\r\n', 'c']
    """
    return _LINE.findall(code)


def split_value(code: str) -> tuple[str, str]:
    r"""A cell's code before its last expression, and that expression; empty without one, or if a `;` silences it.

    >>> split_value("x = 1\nx + 1")
    ('x = 1\n', 'x + 1')
    """
    tree = ast.parse(code)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        return code, ""
    lines = lines_of(code)
    row, end_row = last.lineno - 1, (last.end_lineno or last.lineno) - 1
    first, end = lines[row].encode(), lines[end_row].encode()
    if _SILENCED.match(end[last.end_col_offset :].decode()):
        return code, ""
    before = "".join(lines[:row]) + first[: last.col_offset].decode()
    if row == end_row:
        value = first[last.col_offset : last.end_col_offset].decode()
    else:
        middle = "".join(lines[row + 1 : end_row])
        value = first[last.col_offset :].decode() + middle + end[: last.end_col_offset].decode()
    bare = row != end_row or isinstance(last.value, (ast.Tuple, ast.NamedExpr))
    return before, f"({value})" if bare else value


def is_silenced(cell: str) -> bool:
    """Whether a `;` at the end of a cell, which may have magics, silences the value of its last expression."""
    try:
        return not split_value(cell)[1] and bool(_SILENCED_END.search(cell))
    except (SyntaxError, ValueError):
        return bool(_SILENCED_END.search(cell))


def indented(code: str) -> str:
    """Code in a block. Texts of several lines keep their content."""
    tree = ast.parse(code)
    if not tree.body:
        return textwrap.indent(f"{code.rstrip()}\npass".lstrip("\n"), "    ")
    if any(isinstance(one, (ast.Constant, ast.JoinedStr)) and _is_long_text(one) for one in ast.walk(tree)):
        # As the body of a block that is taken away again, it is unparsed at this depth.
        block = ast.If(ast.Constant(True), list[ast.stmt](tree.body), [])
        return ast.unparse(ast.fix_missing_locations(ast.Module([block], []))).partition("\n")[2]
    return textwrap.indent(code.rstrip("\n"), "    ")


def _is_long_text(node: ast.Constant | ast.JoinedStr) -> bool:
    return node.end_lineno != node.lineno and (isinstance(node, ast.JoinedStr) or isinstance(node.value, (str, bytes)))
