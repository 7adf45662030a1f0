"""Tests of what can be shown in one process: no other process, no store."""
