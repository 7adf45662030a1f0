"""Runs: their handles, their beginning and their end."""
