"""A tracking server to run with Docker Compose: files that `trackdsl compose` prints or writes."""
