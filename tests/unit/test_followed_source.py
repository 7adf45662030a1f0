"""Which definitions of its project count as the source of a function, where no plain name leads to them."""

from __future__ import annotations

import time
from pathlib import Path

from trackdsl._core.source_text import digest_of, text_of
from trackdsl.store_format.changes.modules import Modules
from trackdsl.store_format.changes.source import Used, used_by, used_by_program

HELPERS = """
from functools import singledispatch

@singledispatch
def show(x):
    return str(x)

@show.register
def _(x: int):
    return hex(x)

@show.register(list)
@show.register(tuple)
def _(x):
    return pieces(x)

def pieces(x):
    return len(x)

def named():
    return 1

def unused():
    return show.register
"""


def used(folder: Path, body: str, **modules: str) -> Used:
    """What a function with this body uses, in a project with these modules."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    program = folder / "program.py"
    program.write_text(f"import helpers as h\nfrom helpers import show\n\ndef main(x):\n    {body}\n")
    searched = Modules([str(folder)])
    module = searched.at(str(program))
    assert module is not None
    digest = digest_of(text_of(module.codes[0], module.lines))
    found = used_by("__main__.main", str(program), digest, searched, time.time_ns())
    assert found is not None
    return found


def test_implementations_of_a_generic_function(tmp_path: Path) -> None:
    """Whoever calls a `singledispatch` function depends on all that its module registers, and on what these use."""
    found = used(tmp_path, "return show(x)", helpers=HELPERS).definitions
    assert set(found) == {
        *("__main__.main", "helpers.show", "helpers.show.register(x: int)"),
        *("helpers.show.register(list).register(tuple)", "helpers.pieces"),
    }
    assert found["helpers.show.register(x: int)"].text == "@show.register\ndef _(x: int):\n    return hex(x)\n"
    assert "helpers.show.register(x: int)" in used(tmp_path, "return h.show(x)").definitions
    assert "helpers.show" not in used(tmp_path, "return h.pieces(x)").definitions


def test_a_name_in_a_text_for_getattr(tmp_path: Path) -> None:
    """`getattr(h, "named")` is `h.named`; a name that is not a constant leads nowhere."""
    assert set(used(tmp_path, 'return getattr(h, "named")()', helpers=HELPERS).definitions) == {
        *("__main__.main", "helpers.named")
    }
    assert set(used(tmp_path, "return getattr(h, x)()").definitions) == {"__main__.main"}


def test_masked_source_is_named(tmp_path: Path) -> None:
    """A change of a secret in the source is not seen, as it is masked: what has one is named, and nothing else is."""
    module = "API_KEY = 'sk-abcdefghijklmnop1234567890abcdef'\nLIMIT = 3\n"
    found = used(tmp_path, "return h.API_KEY, h.LIMIT", helpers=module)
    assert found.masked == {"helpers.API_KEY"}
    script = tmp_path / "script.py"
    script.write_text(f"import helpers\n{module}")
    program = used_by_program("script.py", str(script), "", Modules([str(tmp_path)]), time.time_ns())
    assert program is not None
    assert program.masked == {"script.py"}
    # The hash of a recorded function itself is that of its whole text.
    assert not used(tmp_path, "token = 'ghp_abcdefghijklmnopqrstuvwxyz0123456789'").masked


FORMATS = """
import helpers
from helpers import Writer

@helpers.show.register
def _(x: list):
    return columns(x)

def columns(x):
    return list(x)

def text(x):
    return x

helpers.show.register(str, text)

@Writer.write.register
def _(self, x: bytes):
    return self.mode
"""
WRITER = """
from functools import singledispatchmethod

class Writer:
    @singledispatchmethod
    def write(self, x):
        return x
"""


def test_implementations_in_other_modules(tmp_path: Path) -> None:
    """Whoever calls a generic function depends on what modules register that the program imports, and no others."""
    files = {"helpers": HELPERS + WRITER, "unused": FORMATS, "plugins": "from package import formats"}
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "formats.py").write_text(FORMATS)
    body = "import plugins\n    return show(x)"
    found = set(used(tmp_path, body, **files).definitions)
    assert {one for one in found if not one.startswith("helpers.")} == {
        "__main__.main",
        "package.formats.helpers.show.register(x: list)",
        "package.formats.helpers.show.register(str, text)",
        "package.formats.columns",
        "package.formats.text",
    }
    of_class = set(used(tmp_path, "import plugins\n    return h.Writer().write(x)").definitions)
    assert "package.formats.Writer.write.register(self, x: bytes)" in of_class
    assert "package.formats.columns" not in of_class
    assert not [one for one in used(tmp_path, "return show(x)").definitions if "formats" in one]


def test_implementations_that_the_program_imports(tmp_path: Path) -> None:
    """The imports of the program's file count for its functions in other modules."""
    (tmp_path / "helpers.py").write_text(HELPERS + WRITER)
    (tmp_path / "formats.py").write_text(FORMATS)
    model = tmp_path / "model.py"
    model.write_text("from helpers import show\n\ndef fit(x):\n    return show(x)\n")
    (tmp_path / "train.py").write_text("import formats, model\n")
    searched = Modules([str(tmp_path)])
    module = searched.at(str(model))
    assert module is not None
    digest = digest_of(text_of(module.codes[0], module.lines))
    for main, expected in (("train.py", True), ("model.py", False)):
        found = used_by("model.fit", str(model), digest, searched, time.time_ns(), str(tmp_path / main))
        assert found is not None
        assert ("formats.columns" in found.definitions) == expected
