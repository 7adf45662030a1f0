"""The program's side of delivery: starting the delivery process, waiting for it, and reading from the store."""
