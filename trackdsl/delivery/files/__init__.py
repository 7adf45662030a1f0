"""Files for a store: artifacts, models, and tables that grow."""
