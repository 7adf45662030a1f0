"""`trackdsl run`: any program under a root run, unchanged."""
