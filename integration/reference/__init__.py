"""The policy reference, made from the policy's JSON schema."""
