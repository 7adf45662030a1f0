"""The functions that log to the current run, and the settings that a program makes."""
