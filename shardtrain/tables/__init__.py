"""Other people's features and labels (HDF5, NumPy, LibSVM, Parquet), used where they are or made into shards."""
