"""Readers of published data sets and of any table: each ends in the common form (`source.py`)."""
