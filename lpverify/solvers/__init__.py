"""Solver backends behind one interface. Their numbers are claims, never bounds."""
