"""A job for worker processes, which import only this module."""


def leave_a_mark(job, folder):
    (folder / job).touch()
    return ""
