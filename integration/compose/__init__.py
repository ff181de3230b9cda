"""envoy/docker-compose.yaml in a real Docker engine."""
