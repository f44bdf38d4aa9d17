"""A job for processes of their own, which import this file and nothing else."""


def leave_a_mark(job, folder):
    (folder / job).touch()
    return ""
