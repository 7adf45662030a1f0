"""The parts of the delivery process: its worker, its child processes, its heartbeat and its open stores."""
