"""A sound neural-network verifier."""
