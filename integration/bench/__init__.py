"""The cost of signing: `python -m integration.bench`."""
