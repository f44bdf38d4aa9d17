"""Batches by step number: of sets in memory (`resident`) and of image files (`streaming`)."""
