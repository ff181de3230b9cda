"""The integration tests, their harness, and related programs; each program is run with `python -m`."""
