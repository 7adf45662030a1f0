"""Decorators and `with` blocks: how a call becomes a run."""
