"""Proposers: what answers a brief with a source."""
