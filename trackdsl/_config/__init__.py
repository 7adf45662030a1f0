"""Settings: what there is to set, where each value comes from, and the ways to set it."""
