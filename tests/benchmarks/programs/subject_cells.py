"""Cells of a notebook, with and without a magic: executed by a kernel in this process, with their cards."""

from __future__ import annotations

from collections.abc import Mapping

from answering import Body, answer

_BODY = "lr = 0.1\nrows = [at * lr for at in range(100)]\nacc = sum(rows) / len(rows)\n"


def prepare() -> Mapping[str, Body]:
    """Load the magics, and execute each cell once."""
    from ipykernel.inprocess.manager import InProcessKernelManager

    manager = InProcessKernelManager()
    manager.start_kernel()
    shell = manager.kernel.shell
    plain = _cells(shell, _BODY)
    plain(1)
    shell.run_line_magic("load_ext", "trackdsl")
    shell.run_cell("%experiment cells")
    stage = _cells(shell, f"%%stage fit depth=3 --metrics acc\n{_BODY}")
    stage(1)
    return {"plain": plain, "stage": stage}


def _cells(shell: object, code: str) -> Body:
    def execute(times: int) -> None:
        for _ in range(times):
            shell.run_cell(code, store_history=True).raise_error()  # type: ignore[attr-defined]

    return execute


if __name__ == "__main__":
    answer(prepare)
