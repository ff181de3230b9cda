"""The policy reference, generated from the policy's JSON schema."""
