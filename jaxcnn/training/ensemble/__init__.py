"""Several runs as one: members of a configuration, and ensembles that a file describes."""
