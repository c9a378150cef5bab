"""From documents to feature rows: tokens, counts, n-grams, sequences, and the fitted vectorizer."""

from shardtrain.vectorize.fitted import Vectorizer, load_vectorizer

__all__ = ["Vectorizer", "load_vectorizer"]
