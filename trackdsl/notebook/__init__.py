"""Notebook cells as stages: the magics of `%load_ext trackdsl`. Nothing of it is imported before that.

A cell that begins with `%%stage` or `%%experiment` is not run inside a magic: its first line is replaced by a call that
begins the run, and a callback of IPython ends the run after the cell. So the cell itself is executed by IPython as any
other: top-level `await`, other magics, interrupts and tracebacks are what they are without trackdsl.
"""
