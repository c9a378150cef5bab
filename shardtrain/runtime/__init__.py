"""How work runs on this machine: files committed whole, jobs, passes, executors, memory, progress. Knows no data."""
