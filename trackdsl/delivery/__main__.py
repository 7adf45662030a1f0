"""`python -m trackdsl.delivery SPOOL`: the delivery process."""

import sys
from pathlib import Path

from trackdsl.delivery._process import main

main(Path(sys.argv[1]))
