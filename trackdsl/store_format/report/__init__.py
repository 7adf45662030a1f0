"""The report of a run and all runs below it: one page of HTML that needs nothing else, `trackdsl/report.html`.

`trackdsl report` makes it of what a query has read, and delivery of what its store has. `collect` bounds what is shown,
and `page` writes it. Nothing here knows a store, and nothing that is shown is trusted: every text is escaped, the page
lets only its own script run, and it can load nothing.
"""
