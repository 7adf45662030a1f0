"""The delivery of journals: reading them event by event, and writing down how far they are delivered."""
