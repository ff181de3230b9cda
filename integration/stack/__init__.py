"""What is run: Envoy with the filter, the refresher, AWS servers, and a capture between them.

The tests, the bench, the soak, the demo and docker-compose's AWS take it from here. It takes nothing of the rest of
`integration`, so that the image of that AWS needs this folder alone.
"""
