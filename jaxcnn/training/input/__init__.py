"""From a data set to the batches that a step takes."""
