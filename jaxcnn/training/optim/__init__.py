"""Optimizers, their update rules, learning rate schedules, and losses."""

# Fields that are not passed to the function if `name` is the address of a custom function.
RESERVED_FIELDS = {
    "loss": ("name", "aux_weight", "box_weight"),
    "optimizer": ("name", "rates", "clip_norm", "clip_adaptive"),
    "schedule": ("name",),
}
