"""Writes and reads the files of a run: its directory, checkpoints, metrics and traces."""
