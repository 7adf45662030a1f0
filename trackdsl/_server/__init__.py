"""HTTP requests to an MLflow server."""
