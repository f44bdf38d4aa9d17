"""Checks before the first step, and the search for what was not finite."""
