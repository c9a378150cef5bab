"""Shards on disk: their format, writing them, reading them."""
