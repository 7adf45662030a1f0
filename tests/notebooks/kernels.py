"""A real Jupyter kernel for tests: one for each worker of pytest, reset between tests."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0


@dataclass
class Answer:
    """What the execution of a cell sent back.

    Attributes:
        status: `ok` or `error`.
        texts: the texts of streams, displays and results, in order.
        error: the name and text of the exception; None without one.
        messages: everything.
    """

    status: str
    texts: list[str] = field(default_factory=list)
    error: tuple[str, str] | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    def outputs(self) -> list[dict[str, Any]]:
        """What a notebook's file keeps of the cell: displays in their last state."""
        found: list[dict[str, Any]] = []
        shown: dict[str, dict[str, Any]] = {}
        for message in self.messages:
            kind, content = message["msg_type"], message["content"]
            id_ = content.get("transient", {}).get("display_id")
            if kind == "update_display_data":
                if id_ in shown:
                    shown[id_].update(data=content["data"], metadata=content["metadata"])
            elif kind in ("display_data", "execute_result", "stream", "error"):
                kept = {key: value for key, value in content.items() if key != "transient"}
                found.append({"output_type": kind, **kept})
                if id_:
                    shown[id_] = found[-1]
        return found


class Kernel:
    """A kernel that executes cells.

    Args:
        folder: its working directory.
        environment: more variables.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        # Jupyter's servers give the file this name, which has the id of the kernel.
        self.manager = KernelManager(connection_file=str(folder / f"kernel-{uuid.uuid4()}.json"))
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        # An earlier test may have set the store of this process in its environment, as MLflow does.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        self.manager.start_kernel(cwd=str(folder), env={**inherited, "PYTHONPATH": path, **environment})
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)

    def run(self, code: str, cell: str | None = None) -> Answer:
        """Execute a cell; `cell` is the id that the front end sends."""
        return self.answer(self.send(code, cell))

    def subshell(self) -> str:
        """Make a subshell, which executes cells beside the others; returns its id."""
        request = self.client.session.msg("create_subshell_request", {})
        self.client.control_channel.send(request)
        reply = self.client.control_channel.get_msg(timeout=PATIENCE)
        id_: str = reply["content"]["subshell_id"]
        return id_

    def send(self, code: str, cell: str | None = None, subshell: str | None = None) -> str:
        """Send a cell to be executed; returns the id of the message."""
        content = {
            "code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False,
            "stop_on_error": True,
        }  # fmt: skip
        message = self.client.session.msg("execute_request", content, metadata={} if cell is None else {"cellId": cell})
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)
        id_: str = message["header"]["msg_id"]
        return id_

    def answer(self, id_: str) -> Answer:
        """Wait until a cell has been executed."""
        answer = Answer("")
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != id_:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                break
            answer.messages.append(message)
            if kind == "stream":
                answer.texts.append(content["text"])
            elif kind in ("display_data", "execute_result", "update_display_data"):
                answer.texts.append(content["data"].get("text/plain", ""))
        while (reply := self.client.get_shell_msg(timeout=PATIENCE))["parent_header"].get("msg_id") != id_:
            pass
        answer.status = reply["content"]["status"]
        if answer.status == "error":  # Wrong use of a magic is reported by the reply alone.
            answer.error = (reply["content"]["ename"], reply["content"]["evalue"])
        return answer

    def statuses(self, *ids: str) -> list[str]:
        """Wait for the replies to several cells; returns the status of each."""
        found: dict[str, str] = {}
        while not found.keys() >= set(ids):
            reply = self.client.get_shell_msg(timeout=PATIENCE)
            found[reply["parent_header"]["msg_id"]] = reply["content"]["status"]
        return [found[id_] for id_ in ids]

    def ok(self, code: str, cell: str | None = None) -> str:
        """Execute a cell that must not fail; returns its text."""
        answer = self.run(code, cell)
        assert answer.status == "ok", answer
        return answer.text

    def value(self, expression: str) -> Any:
        """The value of an expression in the kernel, which JSON can hold."""
        text = self.ok(f"print(__import__('json').dumps({expression}))")
        return json.loads(text)

    def recorded(self) -> list[SimpleNamespace]:
        """The runs that were recorded since the test began; see `probe.recorded`."""
        text = self.ok("print(__import__('tests.notebooks.probe').notebooks.probe.recorded())")
        return [SimpleNamespace(**run) for run in json.loads(text)]

    def one(self, name: str) -> SimpleNamespace:
        """The only run with a name."""
        found = [run for run in self.recorded() if run.name == name]
        assert len(found) == 1, found
        return found[0]

    @property
    def pid(self) -> int:
        """The process."""
        pid: int = self.manager.provisioner.pid
        return pid

    def end(self) -> None:
        """Kill it."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
