"""Services of the process: compilation, its cache, several processes, stop signals."""
