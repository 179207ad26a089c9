"""The supervisor: it has the queue, the device lease, the memory budget and the results. No torch."""
