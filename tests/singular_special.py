"""The special functions at their kinks, poles and edges, as in ``singular_points.py``."""

from __future__ import annotations

from typing import Any

import netcl.functional as F
from tests.singular_points import CUT, INF, LIMIT, NAN, OUTSIDE, SCALED, SHOWN, Elementwise, Point

SCIPY = "SciPy's value, where torch has the limit or the other way round"
LOST = "torch takes it from the result, which has lost it"
ROUGH = "torch's trigamma is good to ten digits"
POLE = "torch has a large number at a pole, by its formula"
_ONE_NAN = (NAN, NAN, NAN)


def _one(name: str, *rows: tuple[Any, ...]) -> Elementwise:
    points = tuple([Point((x,), y, (d,), *rest) for x, y, d, *rest in rows])
    return Elementwise(getattr(F, name), lambda t, x: getattr(t.special, name)(x), points)


def _two(name: str, *rows: tuple[Any, ...]) -> Elementwise:
    points = tuple([Point((x1, x2), y, (d1, d2), *rest) for x1, x2, y, d1, d2, *rest in rows])

    def peer(t: Any, x1: Any, x2: Any) -> Any:
        found = getattr(t.special, name, None)
        return found and found(x1, x2)

    return Elementwise(getattr(F, name), peer, points)


_LN2 = 0.6931471805599453

SPECIAL: dict[str, Elementwise] = {
    "erfc": _one(
        "erfc", (0.0, 1.0, -1.1283791670955126), (1e4, 0.0, 0.0), (-1e4, 2.0, 0.0), (INF, 0.0, 0.0), (-INF, 2.0, 0.0),
        _ONE_NAN,
    ),
    "erfinv": _one(
        "erfinv", (0.0, 0.0, 0.886226925452758), (1.0, INF, INF), (-1.0, -INF, INF), (1.0, INF, 0.0, 0.0, CUT),
        (2.0, NAN, NAN), (2.0, NAN, 0.0, 0.0, CUT), _ONE_NAN,
    ),
    "gammaln": _one(
        "gammaln", (1.0, 0.0, -0.5772156649015329), (2.0, 0.0, 0.42278433509846714), (0.0, INF, -INF),
        (0.0, INF, 0.0, 0.0, CUT), (-1.0, INF, NAN), (-1.0, INF, 0.0, 0.0, CUT), (INF, INF, INF),
        (-INF, -INF, NAN, 1.0, SCIPY), _ONE_NAN,
    ),
    "digamma": _one(
        "digamma", (1.0, -0.5772156649015329, 1.6449340668482264, 1.0, ROUGH), (0.0, -INF, INF), (-0.0, INF, INF),
        (0.0, -INF, 0.0, 0.0, CUT), (-1.0, NAN, INF, 1.0, POLE), (-1.0, NAN, 0.0, 0.0, CUT), (INF, INF, 0.0), _ONE_NAN,
    ),
    "expit": _one(
        "expit", (0.0, 0.5, 0.25), (1e4, 1.0, 0.0), (-1e4, 0.0, 0.0), (INF, 1.0, 0.0), (-INF, 0.0, 0.0),
        (30.0, 1.0 - 9.357622968840175e-14, 9.357622968839299e-14, 1.0, LOST), _ONE_NAN,
    ),
    "logit": _one(
        "logit", (0.5, 0.0, 4.0), (0.0, -INF, INF), (1.0, INF, INF), (0.0, -INF, 0.0, 0.0, CUT), (2.0, NAN, NAN),
        (2.0, NAN, 0.0, 0.0, CUT), _ONE_NAN,
    ),
    "ndtr": _one(
        "ndtr", (0.0, 0.5, 0.3989422804014327), (1e4, 1.0, 0.0), (-1e4, 0.0, 0.0), (INF, 1.0, 0.0), (-INF, 0.0, 0.0),
        _ONE_NAN,
    ),
    "log_ndtr": _one(
        "log_ndtr", (0.0, -_LN2, 0.7978845608028654), (1e4, 0.0, 0.0),
        (-1e4, -50000010.129278915, 10000.0001, 1.0, LOST), (INF, 0.0, 0.0), (-INF, -INF, INF, 1.0, LIMIT), _ONE_NAN,
    ),
    "ndtri": _one(
        "ndtri", (0.5, 0.0, 2.5066282746310002), (0.0, -INF, INF), (1.0, INF, INF), (1.0, INF, 0.0, 0.0, CUT),
        (2.0, NAN, NAN), (2.0, NAN, 0.0, 0.0, CUT), _ONE_NAN,
    ),
    "entr": _one(
        "entr", (0.0, 0.0, INF), (0.0, 0.0, 0.0, 0.0, CUT), (1.0, 0.0, -1.0), (-1.0, -INF, NAN),
        (-1.0, -INF, 0.0, 0.0, CUT), (INF, -INF, -INF), _ONE_NAN,
    ),
    "i0": _one("i0", (0.0, 1.0, 0.0), (1e4, INF, INF), (-1e4, INF, -INF), (INF, INF, INF, 1.0, LIMIT), _ONE_NAN),
    "i0e": _one(
        "i0e", (0.0, 1.0, 0.0), (1e4, 0.003989472674604732, -1.994786210698419e-07, 1.0, SCALED), (INF, 0.0, 0.0),
        (-INF, 0.0, 0.0), _ONE_NAN,
    ),
    "i1": _one(
        "i1", (0.0, 0.0, 0.5), (1e4, INF, INF, 1.0, LIMIT), (-1e4, -INF, INF, 1.0, LIMIT), (INF, INF, INF, 1.0, LIMIT),
        (NAN, NAN, NAN, 1.0, SHOWN),
    ),
    "i1e": _one(
        "i1e", (0.0, 0.0, 0.5), (1e4, 0.003989273195983662, -1.994486985285241e-07, 1.0, SCALED), (INF, 0.0, 0.0),
        (-INF, 0.0, 0.0), (NAN, NAN, NAN, 1.0, SHOWN),
    ),
    "xlogy": _two(
        "xlogy", (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, CUT), (0.0, 2.0, 0.0, _LN2, 0.0), (0.0, -1.0, 0.0, 0.0, 0.0),
        (0.0, INF, 0.0, INF, 0.0), (1.0, 0.0, -INF, -INF, INF), (1.0, 0.0, -INF, 0.0, 0.0, 0.0, CUT),
        (1.0, -1.0, NAN, NAN, NAN, 1.0, OUTSIDE), (0.0, NAN, NAN, NAN, NAN), (NAN, 1.0, NAN, 0.0, NAN),
    ),
    "xlog1py": _two(
        "xlog1py", (0.0, -1.0, 0.0, 0.0, 0.0, 1.0, CUT), (0.0, 1.0, 0.0, _LN2, 0.0), (0.0, -2.0, 0.0, 0.0, 0.0),
        (1.0, -1.0, -INF, -INF, INF), (1.0, -1.0, -INF, 0.0, 0.0, 0.0, CUT),
        (1.0, -2.0, NAN, NAN, NAN, 1.0, OUTSIDE), (0.0, NAN, NAN, NAN, NAN), (NAN, 1.0, NAN, _LN2, NAN),
    ),
    "rel_entr": _two(
        "rel_entr", (1.0, 1.0, 0.0, 1.0, -1.0), (0.0, 1.0, 0.0, -INF, 0.0), (0.0, 1.0, 0.0, 0.0, 0.0, 0.0),
        (0.0, 0.0, 0.0, NAN, 0.0), (1.0, 0.0, INF, INF, -INF), (1.0, 0.0, INF, 0.0, 0.0, 0.0),
        (-1.0, 1.0, INF, NAN, NAN), (NAN, 1.0, NAN, NAN, NAN), (1.0, NAN, NAN, NAN, NAN),
    ),
    "betaln": _two(
        "betaln", (1.0, 1.0, 0.0, -1.0, -1.0), (0.0, 1.0, INF, -INF, 0.0), (0.0, 1.0, INF, 0.0, 0.0, 0.0),
        (1.0, INF, -INF, -INF, 0.0), (NAN, 1.0, NAN, NAN, NAN), (1.0, NAN, NAN, NAN, NAN),
    ),
}  # fmt: skip
