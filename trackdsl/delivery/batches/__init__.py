"""What delivery writes at once: tags, parameters and points within a store's limits, and what follows a refusal."""
