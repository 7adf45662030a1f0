"""The journal: events of one program, safe from SIGKILL when `append` returns.

A journal is a folder of the spool:

    <id>/lock           held (flock) by the program for as long as it lives
    <id>/000001.seg     the segments, numbered: a header, then frames
    <id>/next           the next segment, made before it is needed
    <id>/reserve        space for the ends of runs, kept free in case the disk is full
    <id>/progress       how much is delivered
    <id>/runs           which MLflow run each of our runs became
    <id>/ended          exists if the program ended normally
    <id>/git            the answer of git about the program's source
    <id>/files/         snapshots of artifacts, each in its own folder

`_files` opens all of these and follows no links. `_snapshots` opens the snapshots. `_ownership` rejects files of other
users.
"""
