"""The Ray actors: thin shells around an evaluation queue, the searches and the proposers."""
