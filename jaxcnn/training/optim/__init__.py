"""Optimizers, their update rules, learning rate schedules, and losses."""

# Where a section of the configuration names a function of the user's own: the fields that are not
# arguments of that function.
OWN_FIELDS = {
    "loss": ("name", "aux_weight", "box_weight"),
    "optimizer": ("name", "rates", "clip_norm", "clip_adaptive"),
    "schedule": ("name",),
}
