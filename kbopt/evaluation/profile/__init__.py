"""Parsers of the output of profiling tools: machine code, traces and hardware counters. Pure functions."""
