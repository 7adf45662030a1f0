"""What delivery remembers of runs and journals, in memory and in ledgers."""
