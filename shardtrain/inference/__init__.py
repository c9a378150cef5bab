"""Use a finished run: classes of texts, of files and of shards, and how good they are."""
