"""What the exit codes of the commands say."""

DONE = 0
NOT_FINITE = 1  # the loss or a gradient; nothing else
MISTAKE = 2  # in what was asked for: arguments, a configuration, a file or data
FAILED = 3  # a file could not be read or written once a run had begun, or a part of the work failed
RUNTIME_ERROR = 4  # of JAX, such as too little memory on a device, or too little memory on the host
PROCESS_LOST = 5  # another of several processes has ended
BUG = 70  # an error that nobody has foreseen; its traceback is shown
