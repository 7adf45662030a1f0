"""Runs a program beside a tracking server of its own, and delivers what it and its workers have recorded.

Its arguments are the program and a folder; the program is given the folder and the address of the server.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

PROGRAM, FOLDER = Path(__file__).parent / sys.argv[1], Path(sys.argv[2])
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.conftest import Server  # noqa: E402


def main() -> None:
    (FOLDER / "server").mkdir()
    server = Server(FOLDER / "server", FOLDER / "mlflow.db")
    # Both take their time to start.
    starting = threading.Thread(target=server.start)
    starting.start()
    try:
        subprocess.run([sys.executable, "-W", "ignore", str(PROGRAM), str(FOLDER), server.uri], check=True)
        starting.join()
        # The second spool is that of the workers, as it would be on other machines.
        for spool in (os.environ["TRACKDSL_SPOOL"], str(FOLDER / "far")):
            environment = {**os.environ, "TRACKDSL_SPOOL": spool}
            subprocess.run([sys.executable, "-m", "trackdsl.cli", "sync"], env=environment, check=True)
    finally:
        starting.join()
        server.kill()


if __name__ == "__main__":
    main()
