"""What changed between two runs of the same program: parameters, source, packages, data, and what came of it.

`recorded` has the two sides, `compare` compares them, `descriptions` writes what differs, and `stored` keeps it with a
run. `modules`, `source` and `packages` find out what a program consists of, without importing any of it. Nothing here
knows a store.
"""
