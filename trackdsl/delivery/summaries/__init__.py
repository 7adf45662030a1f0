"""What delivery makes of a root run that has ended: what changed, its report, and its trace."""
