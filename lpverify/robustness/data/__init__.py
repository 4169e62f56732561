"""Labelled samples from files and arrays, and the network that they go into."""
