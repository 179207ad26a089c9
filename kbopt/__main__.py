"""`python -m kbopt` is the same as `kbopt`."""

from kbopt.cli import main

main()
