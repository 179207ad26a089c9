"""Builds of candidates ahead of the device lease, and a look at their machine code."""
