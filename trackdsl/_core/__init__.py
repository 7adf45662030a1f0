"""What everything else stands on: events, the current run, redaction, names and addresses."""

from trackdsl._core import decoders as decoders  # First: it imports msgspec out of reach of signal handlers.
