"""Handlers in a process of their own: what is imported for them, and entry points."""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Any


def test_other_handlers_are_found_by_their_entry_points(tmp_path: pathlib.Path, start: Any) -> None:
    """A package that offers handlers is imported when a value of the type comes; a broken one is reported once."""
    site = tmp_path / "site"
    info = site / "shop_handlers-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-handlers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[trackdsl.handlers]\nshop.Customer = shop_handlers:customer\nshop.Order = shop_broken:order\n"
    )
    (site / "shop.py").write_text(
        "class Customer:\n    name = 'ada'\nclass Vip(Customer): ...\nclass Order:\n    total = 1\n"
    )
    (site / "shop_handlers.py").write_text(
        "class Customer:\n    suffix = '.customer'\n    def write(self, value, path): path.write_text(value.name)\n"
        "customer = Customer()\n"
    )
    (site / "shop_broken.py").write_text("import nothing_of_this_name\n")
    program = start(
        """
        import sys, logging
        logging.basicConfig(format="LOG %(message)s", stream=sys.stdout)
        from trackdsl import stage, track_returns
        from trackdsl.testing import capture_runs
        import shop
        @stage
        @track_returns("a", "b", "c", "d")
        def f():
            print("shop_handlers" in sys.modules)
            return shop.Customer(), shop.Vip(), shop.Order(), shop.Order()
        with capture_runs() as captured:
            f()
            print(sorted(captured.one("f").artifacts), captured.one("f").artifacts["b.customer"].read_text())
        """,
        PYTHONPATH=f"{site}{os.pathsep}{os.pathsep.join(filter(None, sys.path))}",
    )
    code, out, err = program.finish()
    assert code == 0, err
    imported, log, kept = out.strip().splitlines()
    assert imported == "False"
    assert log.startswith("LOG ")
    assert "shop.Order" in log
    assert "nothing_of_this_name" in log
    assert kept == "['a.customer', 'b.customer', 'c.pkl', 'd.pkl'] ada"


def test_no_library_is_imported_for_its_handler(start: Any) -> None:
    """Neither importing trackdsl, decorating, nor a call with plain values imports a library that has a handler."""
    program = start(
        """
        import sys
        import trackdsl
        from trackdsl.handlers import handler_of
        @trackdsl.stage
        @trackdsl.track_returns
        def f(x, y): return {"a": 1, "b": [2], "c": "x"}
        f(1, [1])
        for value in ({}, [], "", b"", 1, None, {1}, 1j): handler_of(value)
        print([name for name in ("numpy", "pandas", "polars", "pyarrow", "torch", "scipy", "matplotlib", "plotly",
                                 "PIL", "sklearn", "xxhash", "cloudpickle", "yaml", "mlflow") if name in sys.modules])
        """
    )
    code, out, err = program.finish()
    assert (code, out.strip()) == (0, "[]"), err
