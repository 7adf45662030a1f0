"""The sink that writes through MLflow's client: for stores that `database` does not know. It imports MLflow."""
