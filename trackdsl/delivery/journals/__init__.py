"""The delivery of journals: reading them event by event, and noting how far they are delivered."""
