"""The journal: events of one program, safe from SIGKILL when `append` returns.

A journal is a folder of the spool:

    <id>/lock           held (flock) by the program for as long as it lives
    <id>/000001.seg     segments: a header, then frames
    <id>/next           the next segment, made before it is needed
    <id>/reserve        space set aside for the ends of runs, for the day the disk is full
    <id>/progress       how far delivery has come
    <id>/runs           which MLflow run each of our runs became
    <id>/ended          where its program ended as it should
    <id>/git            what git said of the program's source
    <id>/files/         snapshots of artifacts, each in a folder of its own

Everything in it is opened by `_files`, which follows no links, and snapshots by `_snapshots`; `_ownership` keeps the
files of other users out.
"""
