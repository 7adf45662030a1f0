"""The base of the package: events, the current run, masking, names and URIs."""

from trackdsl._core import (
    decoders as decoders,
)  # First: it imports msgspec where no signal handler can interrupt.
