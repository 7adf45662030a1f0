"""`python -m trackdsl.delivery SPOOL`: the delivery process, and with `--server ADDRESS` its child for one server."""

import sys
from pathlib import Path

from trackdsl.delivery._process import main, serve_server

if sys.argv[2:3] == ["--server"]:
    serve_server(Path(sys.argv[1]), sys.argv[3])
else:
    main(Path(sys.argv[1]))
