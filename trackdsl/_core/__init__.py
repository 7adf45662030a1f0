"""The base of the package: events, the current run, masking, names and URIs."""

from trackdsl._core import decoders as decoders  # First: it imports msgspec out of reach of signal handlers.
