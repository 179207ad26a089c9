"""What outlives a process: the journal of a search and the cache of evaluations, in SQLite."""
