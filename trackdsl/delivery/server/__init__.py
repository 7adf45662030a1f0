"""What a tracking server needs to take change sets: an app plugin of MLflow's, see `plugin.py`."""
