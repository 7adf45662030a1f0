"""What is done to runs at the store: creating, resuming, linking, writing and ending them."""
