"""Tests that decorated code behaves as undecorated code."""
