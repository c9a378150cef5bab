"""The format of shards on disk: manifest, writing, reading, codecs, verification."""
