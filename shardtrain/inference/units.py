"""Cut raw text that is to be classified into units, as a build cuts its corpus."""

from __future__ import annotations

from shardtrain.corpus.readers import plan_units
from shardtrain.corpus.source import Source
from shardtrain.corpus.unit_table import UnitTable
from shardtrain.runtime.passes import UNIT_BYTES
from shardtrain.runtime.progress import progress


def units_of(source: Source, density: int) -> UnitTable:
    """Cut an input into units, smaller by a factor of `density`: terms per byte, relative to words."""
    with progress("scanning", total=source.num_bytes, lasting=False) as shown:
        return plan_units(source, unit_bytes=UNIT_BYTES // density, advance=shown.add)
