"""Batches as functions of the step: from memory (`resident`) and image files (`streaming`)."""
