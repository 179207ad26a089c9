"""The untrusted process of one candidate: loads it, calls it, and lists what it called."""
