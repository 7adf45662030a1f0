"""The formats that programs and delivery share: files in the spool, and names and limits in MLflow's stores.

Delivery writes most of these files and names; programs (recording, loading, queries, commands) read them. Nothing here
delivers anything or starts a process. Importing it imports no MLflow.
"""
