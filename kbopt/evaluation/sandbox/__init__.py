"""Where workers run: namespaces, limits, the first process of each sandbox, and handles on them. No torch."""
