"""What tools print of machine code, traces and counters, as values."""
