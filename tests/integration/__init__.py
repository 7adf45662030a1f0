"""Tests of the parts together: real processes, stores and servers."""
