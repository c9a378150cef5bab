"""Tables of external features and labels (HDF5, NumPy, LibSVM, Parquet): read where they are, or made into shards."""
