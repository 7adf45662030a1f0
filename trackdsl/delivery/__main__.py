"""`python -m trackdsl.delivery SPOOL`: the delivery process, and with `--server ADDRESS` its child for one server."""

import argparse
from pathlib import Path

from trackdsl.delivery.service import main, serve_server

parser = argparse.ArgumentParser(prog="python -m trackdsl.delivery", description="Deliver the journals of a spool.")
parser.add_argument("spool", type=Path, help="the spool's folder")
parser.add_argument(
    "--started-by", default="", metavar="PREFIX", help="the prefix of the ids of the program that starts this process"
)
parser.add_argument("--server", metavar="ADDRESS", help="deliver only to this server, as a child of the process above")
parser.add_argument("--only", action="append", type=Path, metavar="JOURNAL", help="deliver only this one; repeatable")
parser.add_argument("--foreground", action="store_true", help="keep the normal priority")
given = parser.parse_args()
if given.server is not None:
    serve_server(given.spool, given.server, given.only, foreground=given.foreground)
else:
    main(given.spool, given.started_by)
