"""Files on disk to blocks of documents: open a corpus, cut it into units, read each.

And where a corpus comes from, if you have none: the published sets, and the generated demo corpus.
"""

from shardtrain.corpus.datasets import DATASETS, Archive, Dataset, recognise
from shardtrain.corpus.demo import Demo, write_demo
from shardtrain.corpus.fetch import Fetched, fetch, find_dataset
from shardtrain.corpus.folders import corpus_files
from shardtrain.corpus.labels import (
    Classes,
    check_added_labels,
    check_known_labels,
    check_validation_labels,
    resolve_classes,
)
from shardtrain.corpus.opening import open_corpus, open_texts
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.corpus.source import BadRow, Corpus, Documents, ReadOptions, Source, Unit

__all__ = [
    "DATASETS",
    "Archive",
    "BadRow",
    "Classes",
    "Corpus",
    "Dataset",
    "Demo",
    "Documents",
    "Fetched",
    "ReadOptions",
    "Source",
    "Unit",
    "check_added_labels",
    "check_known_labels",
    "check_validation_labels",
    "corpus_files",
    "fetch",
    "find_dataset",
    "open_corpus",
    "open_texts",
    "plan_units",
    "read_unit",
    "recognise",
    "resolve_classes",
    "write_demo",
]
