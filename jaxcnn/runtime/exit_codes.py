"""Exit codes of the commands."""

DONE = 0
NOT_FINITE = 1  # the loss or a gradient was not finite; nothing else has this code
MISTAKE = 2  # in the arguments, a configuration, a file or the data
FAILED = 3  # of a run's files, of a part of the work, or a plan that does not fit into memory
RUNTIME_ERROR = 4  # of JAX, or out of memory
PROCESS_LOST = 5  # another process of a distributed run has died
BUG = 70  # an unexpected error, with its traceback
