"""The sink that writes to the tables of MLflow's database itself, in one short transaction for many runs.

It imports no MLflow. It is used only for versions of the tables that it knows, see `_schema.py`; every other store is
written through `MlflowClient`. Runs get our ids there, so creating one twice is impossible.
"""
