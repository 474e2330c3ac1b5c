"""This machine: threads, devices, allocator, memory counters, worker processes."""
