"""Vectorize blocks of documents to feature rows: n-grams, hashed n-grams and token ids, fitted out of core."""
