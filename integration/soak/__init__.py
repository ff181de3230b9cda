"""Credentials that rotate under load: `python -m integration.soak`."""
