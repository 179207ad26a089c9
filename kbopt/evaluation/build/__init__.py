"""Builds of candidates on CPUs, ahead of the device lease, and what their machine code shows."""
