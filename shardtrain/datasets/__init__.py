"""Obtain a corpus if you have none: fetch a published set, or generate a demo corpus."""
