"""Measure classifiers from batches of probabilities and labels, in bounded memory."""
