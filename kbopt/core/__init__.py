"""The pure part of kbopt: types, ports, scoring, memory and search. Standard library and numpy only."""
