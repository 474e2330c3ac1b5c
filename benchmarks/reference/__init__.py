"""Drivers of reference implementations, for the parity and speed benchmarks."""
