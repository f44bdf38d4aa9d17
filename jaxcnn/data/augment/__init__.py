"""Augmentation in pure JAX, on the device; `pipeline` puts the steps together."""
