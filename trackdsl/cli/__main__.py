"""`python -m trackdsl.cli`: the same as `trackdsl`."""

from trackdsl.cli import main

main(prog_name="trackdsl")
