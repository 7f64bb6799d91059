"""Launches of a step with values of whole tensors: the same number for any number of tensors and groups."""

from __future__ import annotations

import numpy as np
import pytest

import netcl
from netcl.optim import LAMB, LARS, Adafactor, Muon

pytestmark = pytest.mark.short(opencl=())  # what the host does, for which one runtime is enough

EXPECTED = {LAMB: 2, LARS: 2, Muon: 2 + 4 + 5 * 5, Adafactor: 6 + 7}


@pytest.mark.parametrize("cls", EXPECTED)
def test_launches_do_not_grow_with_tensors_or_groups(cls, opencl):
    for count, groups in ((1, 1), (1000, 1), (1000, 10)):
        parameters = [
            netcl.asarray(np.ones((4, 8), "float32"), device=opencl.device, requires_grad=True) for _ in range(count)
        ]
        optimizer = cls([{"params": parameters[i::groups]} for i in range(groups)])
        found = []
        for _ in range(3):
            for p in parameters:
                p.grad = netcl.ones((4, 8), device=opencl.device)
            optimizer.zero_grad(set_to_none=False)
            before = opencl.launches, opencl.blocking
            optimizer.step()
            found.append((opencl.launches - before[0], opencl.blocking - before[1]))
        assert found[-1] == (EXPECTED[cls], 0), (count, groups, found)
