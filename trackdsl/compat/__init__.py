"""Other libraries' calls, served by trackdsl."""
