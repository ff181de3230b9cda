"""What the tests and the demo run the filter against: a real Envoy, upstreams that verify, AWS stand-ins."""
