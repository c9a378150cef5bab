"""What a user's scikit-learn program imports: a classifier, and classes in place of scikit-learn's vectorizers."""

from shardtrain.sklearn.classifier import NOT_APPLICABLE, ShardClassifier, held_out
from shardtrain.sklearn.selected import SelectedTfidfVectorizer
from shardtrain.sklearn.vectorizers import CountVectorizer, HashingVectorizer, TfidfVectorizer

__all__ = [
    "NOT_APPLICABLE",
    "CountVectorizer",
    "HashingVectorizer",
    "SelectedTfidfVectorizer",
    "ShardClassifier",
    "TfidfVectorizer",
    "held_out",
]
