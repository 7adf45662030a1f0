"""What programs and delivery share: files in the spool, and names and limits in MLflow's stores.

Delivery writes most of it, and programs (recording, loading, queries, commands) read it. Nothing here delivers, starts
a process or, before a function is called that says so, imports MLflow.
"""
