"""The sandbox of workers: namespaces, limits, the init process, and the supervisor's handles. No torch."""
