"""What a run writes: its directory, checkpoints, metrics, traces; and reading it again."""
