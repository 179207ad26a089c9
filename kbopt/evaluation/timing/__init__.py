"""What is timed, in which order, and what the times say. The statistics are pure."""
