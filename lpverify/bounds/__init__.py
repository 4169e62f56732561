"""Certified bounds on the values of a network: interval and backward linear."""
