"""The supervisor: the queue, the device lease, the memory budget and the results. It imports no torch."""
