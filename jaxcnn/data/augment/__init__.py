"""Augmentation in pure JAX, on the device. `pipeline` composes the steps."""
