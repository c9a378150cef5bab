"""Values that every room hands on: sparse rows, blocks of texts, reusable buffers, scratch arrays."""
