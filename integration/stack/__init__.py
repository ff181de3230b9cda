"""The processes: Envoy with the filter, the refresher, AWS servers, and a capture between them.

The tests, the bench, the soak, the demo and docker-compose's AWS use it. It imports nothing else of `integration`, so
that the image of that AWS needs this folder alone.
"""
