"""Read a corpus: open its files, plan units (input splits), read each unit into a block of documents."""
