"""plot_schedule: the values of a schedule as a picture."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from netcl.errors import HyperParameterError, NetclError
from netcl.optim.engine.group import read
from netcl.optim.schedules.schedule import Schedule
from netcl.validation import shown


def plot_schedule(schedule: Schedule, steps: int, ax: Any = None) -> tuple[list[list[float]], Any]:
    """Draw what a schedule makes of its hyper-parameter in the coming steps. Takes none of them, and does not block.

    Parameters
    ----------
    schedule : Schedule
    steps : int
        How many, from 0 to 10**6.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a figure of its own, which belongs to no window.

    Returns
    -------
    tuple of list and Axes
        What :meth:`Schedule.preview` returns, and where it was drawn: ``axes.figure.savefig("schedule.png")``.

    Raises
    ------
    HyperParameterError
        If ``schedule`` is no Schedule, ``steps`` no such number, or ``ax`` no axes.
    NetclError
        If matplotlib is not installed.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, StepLR, plot_schedule
    >>> sched = StepLR(SGD([netcl.ones(1, requires_grad=True)], lr=1.0), step_size=2, gamma=0.5)
    >>> rates, axes = plot_schedule(sched, steps=4)
    >>> rates
    [[1.0, 1.0, 0.5, 0.5, 0.25]]
    """
    if not isinstance(schedule, Schedule):
        raise HyperParameterError(
            f"plot_schedule takes a schedule that counts its steps, got {shown(schedule)}; what a "
            "ReduceLROnPlateau does depends on a metric"
        )
    if ax is not None and not callable(getattr(ax, "plot", None)):
        raise HyperParameterError(f"ax must be axes of matplotlib or None, got {shown(ax)}")
    rates = schedule.preview(steps)
    if ax is None:
        try:
            figure = import_module("matplotlib.figure").Figure(layout="constrained")
        except ImportError as error:
            raise NetclError(
                'plot_schedule draws with matplotlib, which is not installed: pip install "netcl[plot]"; '
                "schedule.preview(steps) returns the numbers"
            ) from error
        ax = figure.add_subplot()
    for number, (group, values) in enumerate(zip(schedule.optimizer.param_groups, rates, strict=True)):
        start = schedule.position
        ax.plot(range(start, start + len(values)), values, label=read(group, "name") or f"group {number}")
    ax.set_xlabel("step")
    ax.set_ylabel(schedule.hyper)
    if len(rates) > 1:
        ax.legend()
    return rates, ax
