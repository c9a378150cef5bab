"""Corpus in, shards out: the passes of a build, in bounded memory."""

from shardtrain.build.job import build
from shardtrain.build.options import BuildOptions

__all__ = ["BuildOptions", "build"]
