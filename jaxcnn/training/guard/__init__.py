"""Checks before the first step, and the search for the source of nonfinite values."""
