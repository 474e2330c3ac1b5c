"""The package's version: read by the build, the records and the command line."""

__version__ = "0.1.0"
