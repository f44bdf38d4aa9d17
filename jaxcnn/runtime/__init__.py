"""Services of the process: compilation, its cache, memory, other processes, stop signals."""
