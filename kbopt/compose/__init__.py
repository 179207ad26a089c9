"""The composition root: the only modules that name concrete backends, proposers and embedders."""
