"""The pure part of kbopt: types, ports, scoring, memory and search. Standard library and numpy only.

The values that cross boundaries, between processes, to disk and over the network, are frozen and made of
plain data, so that `kbopt.core.codec` can write them as JSON and read them back equal. Times in names carry
their unit; wall-clock instants are Unix seconds.
"""
