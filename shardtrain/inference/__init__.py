"""Use a finished run: classify texts, files and rows of shards, and evaluate the run."""
