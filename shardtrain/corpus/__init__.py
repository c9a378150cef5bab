"""Files on disk to blocks of documents: open a corpus, cut it into units, read each."""
