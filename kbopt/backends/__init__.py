"""Where sources are judged: a worker process on this machine, or a container."""
