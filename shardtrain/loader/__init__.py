"""Read shards as batches: splits, the order of rows, batches, and a plan of the memory that reading takes."""
