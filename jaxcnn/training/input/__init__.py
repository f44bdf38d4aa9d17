"""From a dataset to the batches that a step takes."""
