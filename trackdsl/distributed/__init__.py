"""Work that runs elsewhere (threads, processes, clusters) belongs to the run that started it."""
