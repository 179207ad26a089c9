"""The clocks, the order of timed calls, and the statistics of their times. The statistics are pure."""
