"""Other parts for the tests: upstreams that verify, hostile clients, a mesh, manifests, keys and policies."""
