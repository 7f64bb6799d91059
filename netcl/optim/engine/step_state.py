"""StepState: the step table, and what the device has ready for the coming step."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from netcl.backends.base import StepBlock
from netcl.optim.engine.step_table import StepTable
from netcl.optim.rule import Rule


class Prepared(Enum):
    """What is ready on the device for the coming step."""

    NOTHING = "prepare_step has to make header and counters again"
    COUNTERS = "a neutral header, and the counters as the last launch moved them on"
    CLIPPED = "the decision of a clipping, whose factor the gradients do not carry yet: the step folds it"


class StepState:
    """The step table, the step block and the one state that they are in.

    Parameters
    ----------
    table : StepTable

    Attributes
    ----------
    prepared : Prepared
    """

    def __init__(self, table: StepTable) -> None:
        self.table = table
        self.prepared = Prepared.NOTHING

    @property
    def block(self) -> StepBlock:
        """The step block, another one after the table has grown."""
        return self.table.block

    def write_table(self, workers: int) -> None:
        """Send the hyper-parameters to the device if any of them changed."""
        if self.table.write(workers, decided=self.prepared is Prepared.CLIPPED):
            self.prepared = Prepared.NOTHING

    def clipped(self) -> None:
        """Note that a clipping has decided the coming step."""
        self.prepared = Prepared.CLIPPED

    def clip_is_over(self) -> None:
        """Note that the step cannot fold the factor of the clipping any more."""
        if self.prepared is Prepared.CLIPPED:
            self.prepared = Prepared.NOTHING

    def stepped(self, *, neutral: bool) -> None:
        """Go on to the next step. ``neutral`` says that the header decided nothing, and holds for that step too."""
        self.table.block.slot ^= 1
        self.prepared = Prepared.COUNTERS if neutral else Prepared.NOTHING

    def adopt_rule(self, rule: Rule, columns: tuple[str, ...], block: StepBlock) -> None:
        """Follow another rule from now on, in a block that :meth:`StepTable.with_rule` made."""
        if block is not self.table.block:
            self.prepared = Prepared.NOTHING
        self.table.adopt(rule, columns, block)

    def restore(self, steps: Sequence[int], block: StepBlock) -> None:
        """Go on from these step counts, in a block that :meth:`StepTable.block_for` made. Does not block."""
        self.table.restore(steps, block)
        self.prepared = Prepared.NOTHING
