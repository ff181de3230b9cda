"""What the tests need besides: upstreams that verify, hostile clients, a mesh, manifests, keys and policies."""
