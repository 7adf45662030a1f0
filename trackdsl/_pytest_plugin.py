"""pytest finds the fixtures of `trackdsl.testing` through this module."""
