"""How work runs on this machine: atomic files, jobs, passes, executors, memory, progress; independent of the data."""
