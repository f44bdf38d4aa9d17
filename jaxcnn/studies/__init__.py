"""Studies: a grid of settings, trained with several seeds, to one table and one figure."""
