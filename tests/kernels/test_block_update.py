"""block_update on OpenCL in every form: vectors of each width, and work-groups that share a block."""

import numpy as np
import pytest

from netcl.backends.base import CHUNK
from netcl.testing.conformance.blocks import Model, check_codes, oracle
from netcl.testing.conformance.step_block import Block
from tests.kernels.forms import own_backend

NAMES = ("WIDTH", "RUN", "WORK_GROUP_SIZE", "INTERLEAVED")
FORMS = {"cpu": (8, 128, 1, 0), "gpu": (1, 4, 256, 1), "pairs": (2, 8, 64, 1), "fours": (4, 8, 16, 1)}


@pytest.mark.short(form=("cpu", "gpu"))
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_updates_alike(opencl, form, bits):
    backend = own_backend(opencl)
    backend.queue.set_knobs("fused_update", tuple(zip(NAMES, FORMS[form], strict=True)))
    rows = [{"lr": 0.1}, {"active": 0}]
    model = Model(backend, 3 * CHUNK + 131, bits, rows=[0, 1, 0, 0])
    given, block = model.given(), Block(backend, rows=rows)
    still = np.repeat([False, True, False, False], CHUNK)
    changed = (
        np.where(still, old, new)
        for old, new in zip((given[0], *given[2:]), oracle(block.rows[0], *given), strict=True)
    )
    p, m, v = changed
    model.update(block, advance=True)
    np.testing.assert_allclose(model.p.values, p[: model.n], rtol=2e-6, atol=2e-6)
    for blocks, wanted in zip(model.fields, (m, v), strict=True):
        check_codes(blocks, wanted, rtol=1e-6)
    assert [row["step"] for row in block.counters(1)] == [2, 1]
