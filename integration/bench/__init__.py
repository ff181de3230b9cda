"""What signing costs: `python -m integration.bench`."""
