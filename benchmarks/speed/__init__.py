"""Timings that anyone can repeat: ours and a peer in turn, in one run. Not tests."""
