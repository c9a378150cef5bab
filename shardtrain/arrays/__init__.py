"""Data structures shared by all packages: sparse rows, blocks of texts, a buffer pool, memory-mapped scratch files."""
