"""The integration tests, what they run in, and the programs beside them; each is run with `python -m`."""
