"""Patches that let RecBole 1.2.1 run, unmodified, on current packages."""
