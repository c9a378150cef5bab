"""Shards to batches: the order of rows, splits, batches, and what reading them holds in memory."""
