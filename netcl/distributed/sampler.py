"""DistributedSampler: which samples a rank sees."""

from __future__ import annotations

from collections.abc import Sized

import numpy as np
from numpy.typing import NDArray

from netcl.data.loader import in_order, shuffled
from netcl.distributed.world import rank, world_size
from netcl.validation import extent, flag, one_of
from netcl.validation import seed as as_seed

_REMAINDERS = ("repeat", "drop", "keep")


class DistributedSampler:
    """Deals the samples of a data set to the ranks like cards, in an order that all ranks agree on without a message.

    Rank ``r`` of ``w`` takes the samples ``r, r + w, r + 2·w, …`` of the order. So batch ``k`` of all ranks together
    holds the samples of batch ``k`` of a single process with a batch ``w`` times as large.

    Parameters
    ----------
    data : sized or int
        The data set, or how many samples it has.
    shuffle : bool, default False
        A new order every epoch, from ``seed`` and the number of the epoch alone: that of a ``DataLoader`` with this
        seed.
    seed : int, default 0
    remainder : {"repeat", "drop", "keep"}
        What to do if the samples cannot be dealt evenly: deal the first ones once more, which is the default; leave
        out the last ones; or let ranks have one sample more than others. The latter is right for evaluation, and wrong
        for training, where all ranks must take the same number of steps.

    Raises
    ------
    ShapeError
        If there is no sample, or ``data`` has no length and is none.
    ArgumentError
        If the seed is negative, or ``remainder`` is something else.

    Examples
    --------
    >>> import numpy as np
    >>> from netcl.data import DataLoader
    >>> from netcl.distributed import DistributedSampler
    >>> data = np.arange(6.0)
    >>> loader = DataLoader(data, batch_size=4, sampler=DistributedSampler(data), device="numpy")
    >>> [x.tolist() for x, in loader]
    [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0]]
    """

    def __init__(self, data: Sized | int, *, shuffle: bool = False, seed: int = 0, remainder: str = "repeat") -> None:
        if isinstance(data, Sized) and not isinstance(data, str | bytes | dict) and getattr(data, "shape", None) != ():
            data = len(data)
        self.samples = extent("the number of samples", data, least=1)
        self.shuffle = flag("shuffle", shuffle)
        self.seed = as_seed("seed", seed)
        self.remainder = one_of("remainder", remainder, _REMAINDERS)
        self._rank, self._ranks = rank(), world_size()

    def __len__(self) -> int:
        each, rest = divmod(self.samples, self._ranks)
        if self.remainder == "drop" or not rest:
            return each
        return each + 1 if self.remainder == "repeat" or self._rank < rest else each

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The indices of this rank's samples in an epoch, in order."""
        epoch = as_seed("epoch", epoch)
        order = shuffled(self.samples, self.seed, epoch) if self.shuffle else in_order(self.samples)
        # Resizing repeats from the start as often as it takes.
        dealt: NDArray[np.int64] = order if self.remainder == "keep" else np.resize(order, len(self) * self._ranks)
        return dealt[self._rank :: self._ranks]
