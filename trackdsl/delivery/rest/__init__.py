"""Tracking servers without change sets, written to through MLflow's REST API without an import of MLflow."""
