"""Divide every batch of an epoch among several readers, by position, whatever reads it.

Reader r of n has the rows [b * r // n, b * (r + 1) // n) of each batch of b rows. All parts together are the batches
of one reader, so what is computed from all of them does not depend on n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WHOLE = (0, 1)


@dataclass(frozen=True)
class Part:
    """One reader's part of the batches of an epoch.

    Attributes:
        index: of the reader, from 0.
        of: the number of readers.
        batch_size: rows per batch.
        num_rows: rows of the epoch; the last batch has what is left.
    """

    index: int
    of: int
    batch_size: int
    num_rows: int

    def within(self, batch: int) -> tuple[int, int]:
        """Return the positions of the epoch, half-open, that are this reader's of a batch, from 0."""
        start = batch * self.batch_size
        rows = max(0, min(self.batch_size, self.num_rows - start))
        return start + rows * self.index // self.of, start + rows * (self.index + 1) // self.of

    def count(self, position: int) -> int:
        """Count the reader's rows among the first `position` positions of the epoch."""
        batch = position // self.batch_size
        whole, (start, stop) = self.within(0), self.within(batch)
        return batch * (whole[1] - whole[0]) + min(max(position - start, 0), stop - start)

    def positions(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Return the reader's positions in [start, stop), ascending."""
        found = [np.zeros(0, np.int64)]
        for batch in range(start // self.batch_size, -(-stop // self.batch_size)):
            first, last = self.within(batch)
            found.append(np.arange(max(first, start), max(min(last, stop), max(first, start))))
        return np.concatenate(found)
