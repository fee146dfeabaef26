"""Batches of (epoch, index) keys: the same for every number of workers and ranks, and able to start in the middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
from torch.utils.data import Sampler


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of one rank: lists of (epoch, index).

    The order of an epoch is a function of (seed, epoch). It is cut into global batches of `batch_size * world_size`;
    each rank takes its part of each, so the union over ranks does not depend on their number. The order is
    lengthened from its start until the ranks share the last batch evenly (mmengine's `round_up`); with `drop_last` an
    incomplete batch is left out instead. In evaluation the metric drops the repeats.

    Of a million faces an epoch's order takes 8 MB and 0.02 s; indices become Python's a batch at a time.

    `start` is asked, whenever an iteration begins, for the number of batches of this epoch that are done already.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        start: Callable[[], int] | None = None,
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.start = start
        self.epoch = 0

    @property
    def sampler(self) -> EpochBatches:
        """Itself: Lightning looks here for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank, wherever the iteration starts."""
        whole = self.batch_size * self.world_size
        return self.size // whole if self.drop_last else -(-self.size // whole)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.arange(self.size)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
        padded = -(-self.size // self.world_size) * self.world_size
        order = np.resize(order, padded)
        whole = self.batch_size * self.world_size
        for batch in range(self.start() if self.start else 0, len(self)):
            shared = order[batch * whole : (batch + 1) * whole]
            part = len(shared) // self.world_size
            yield [(self.epoch, int(index)) for index in shared[self.rank * part : (self.rank + 1) * part]]


class Keys(Sampler[tuple[int, int]]):
    """The keys of `batches`, whole batches kept, one by one: for who cuts batches itself."""

    def __init__(self, batches: EpochBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return -(-self.batches.size // self.batches.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return chain.from_iterable(self.batches)
