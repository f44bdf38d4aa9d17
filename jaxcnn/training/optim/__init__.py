"""Optimizers, their update rules, learning rate schedules, and losses."""
