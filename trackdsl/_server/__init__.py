"""How an MLflow server is asked over HTTP."""
