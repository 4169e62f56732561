"""Processes that work on single samples."""
