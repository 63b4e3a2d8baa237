"""Which version this is: said here alone, whatever is installed."""

__version__ = "0.2.0"
