"""The kinds of case by name, and what a token stands for."""

from __future__ import annotations

from typing import Any

from tests.fuzz.case import reseeded

KINDS = ("steps", "arrays", "gradients", "narrow")
SHARES = ("steps", "arrays", "steps", "arrays", "gradients", "narrow")
"""In which order the kinds take turns."""


def draw(token: str) -> Any:
    """The case of a token: ``kind:seed:number``, and ``:again`` for the same with other elements."""
    from tests.fuzz import arrays, gradients, narrow, steps

    kind, seed, number, *again = token.split(":")
    module: Any = {"steps": steps, "arrays": arrays, "gradients": gradients, "narrow": narrow}[kind]
    case = module.draw(int(seed), int(number))
    return reseeded(case, int(again[0])) if again else case


def run(case: Any, backend: str) -> None:
    """Run a case of any kind; raises what is wrong."""
    name = type(case).__name__
    if name == "Steps":
        from tests.fuzz import stepping

        stepping.run(case, backend)
    elif name == "Program":
        from tests.fuzz import arrays

        arrays.run(case, backend)
    elif name == "Narrow":
        from tests.fuzz import narrow

        narrow.run(case, backend)
    else:
        from tests.fuzz import gradients

        gradients.run(case, backend)
