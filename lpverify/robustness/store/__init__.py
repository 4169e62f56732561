"""Findings that survive the process."""
