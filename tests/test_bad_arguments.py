"""Every public function, called with one argument spoiled at a time: netcl's own words, or a documented meaning.

A refusal is an error of netcl, or a TypeError, ValueError, IndexError or BufferError that a ``raise`` of netcl's
raised; it comes without a warning and leaves every operand, module, random state and default as it was. What is taken
all the same stands in :data:`TAKEN`, with the reason. For some areas only: ``-k functional``, ``-k "not optim"``.
"""

from __future__ import annotations

import copy
import dis
import inspect
import math
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netcl
from netcl import nn, optim
from netcl.errors import NetclError
from netcl.random import default_generator, host_generator
from tests.valid_calls import ENTRIES, NOT_CALLED_BY_USERS, f32, i64, mask, public

PACKAGE = str(Path(netcl.__file__).parent)


def elsewhere() -> netcl.Tensor:
    """A Tensor of another backend."""
    other = "toy" if netcl.get_backend().device.backend == "numpy" else "numpy"
    return netcl.ones((2, 3), device=other)


PLAIN: dict[str, Callable[[], Any]] = {
    "None": lambda: None, "object": object, "str": lambda: "abc", "bytes": lambda: b"x", "complex": lambda: 3j,
    "empty list": list, "empty dict": dict, "True": lambda: True, "function": lambda: lambda: None,
    "module": lambda: math, "-1": lambda: -1, "0": lambda: 0, "fraction": lambda: 0.5, "NaN": lambda: math.nan,
    "inf": lambda: math.inf, "-inf": lambda: -math.inf, "1e30": lambda: 10**30, "1e400": lambda: 10**400,
    "2**62": lambda: 2**62,
}  # fmt: skip
ARRAYS: dict[str, Callable[[], Any]] = {
    "0-d array": lambda: np.array(0.5), "array": lambda: np.ones((2, 3), np.float32),
    "elsewhere": elsewhere, "bools": lambda: mask(2, 3), "integers": lambda: i64(2, 3),
    "complexes": lambda: netcl.ones((2, 3), dtype="complex64"), "rank 4": lambda: f32(1, 2, 1, 2),
    "0-d Tensor": lambda: f32(1)[0], "no elements": lambda: netcl.zeros((0,)),
}  # fmt: skip
TENSORS = ("elsewhere", "bools", "integers", "complexes", "rank 4", "0-d Tensor", "no elements")

NUMBERS = ("True", "-1", "0", "fraction", "NaN", "inf", "-inf", "1e30", "2**62", "complex")
REAL = ("-1", "0", "fraction", "1e30", "2**62", "0-d array", "0-d Tensor")
SHARES = ("0", "fraction", "0-d array", "0-d Tensor")
POSITIVE = ("fraction", "1e30", "2**62", "0-d array", "0-d Tensor")
INTEGERS = ("-1", "0", "1e30", "1e400", "2**62")
COUNTS = ("0", "1e30", "1e400", "2**62")
ANYTHING = (*PLAIN, *ARRAYS)

# What is taken: (starts of functions, parameters, values) and why. A star stands for all, one after a name for an
# element of that argument. "elsewhere" means a Tensor of another backend where it is the only one.
TAKEN: list[tuple[str, str, tuple[str, ...], str]] = [
    ("*", "x tensor self input indices x1 x2 a b condition args arrays arrays* min max", TENSORS[1:],
     "a Tensor of another dtype, rank or size, which broadcasts or is promoted"),
    ("*", "x tensor arrays args from_ type obj parameters* target* model*", TENSORS, "an only Tensor lies anywhere"),
    ("*", "x1 x2 a b c min max value obj obj* fill_value arrays_and_dtypes", NUMBERS, "a Python number"),
    ("*", "fill_value obj obj* value", ("0-d array", "0-d Tensor"), "a number of NumPy or of netcl"),
    ("netcl.asarray", "obj", ("array", "empty list"), "NumPy arrays and lists are what it converts"),
    ("netcl.from_dlpack", "x", ("array", "0-d array"), "NumPy arrays offer DLPack"),
    ("netcl.result_type", "arrays_and_dtypes", (*TENSORS, "1e400"), "only dtypes are looked at"),
    ("operator.eq operator.ne", "a b", ANYTHING, "what is not a number is unequal, as Python says"),
    ("operator", "a", ("array", "0-d array"), "NumPy's operator, which reads the Tensor"),
    ("operator.mod", "a", ("str", "bytes"), "Python formats the text"),
    ("operator.setitem", "c", ("0-d Tensor",), "one value for all"),
    ("netcl.meshgrid", "indexing", TENSORS, "one more array"),
    ("operator.getitem operator.setitem", "b b*",
     ("None", "-1", "0", "integers", "bools", "0-d Tensor", "empty list"), "positions"),
    ("netcl.functional.broadcast_shapes", "shapes shapes*", ("0", "2**62", "empty list"), "shapes"),
    ("netcl.functional.einsum", "operands operands*", TENSORS[1:], "a Tensor of another dtype"),
    ("netcl.functional.scatter_add", "updates", TENSORS[1:], "updates that broadcast"),
    ("netcl.functional.searchsorted", "sorter", ("None",), "an optional argument"),
    ("netcl.functional.diff", "n", ("0", "2**62", "1e30", "1e400"), "as often as there are elements to take away"),
    ("netcl.functional.diff", "prepend append", ("None", *TENSORS[1:]), "an optional edge that broadcasts"),
    ("*", "axis* axes axes* start_axis end_axis source destination destination* extents*", ("-1", "0"), "an axis"),
    ("*", "axis", ("-1", "0", "None", "empty list"), "an axis, all of them, or none"),
    ("*", "start_dim end_dim", INTEGERS, "an axis, checked against the array when it comes"),
    ("netcl.functional.reshape netcl.Tensor.reshape", "shape shape* extents", ("-1",), "whatever is left"),
    ("*", "shape shape* n_rows n_cols num samples repeats repetitions repetitions*", ("0", "empty list"),
     "an extent of 0, or no axes"),
    ("*", "padding", ("0",), "no padding"),
    ("*", "k shift shift*", INTEGERS, "moves of any length, either way"),
    ("*", "seed epoch generator", ("0", "2**62", "None"), "seeds and epochs up to 2**64; None is netcl's generator"),
    ("*", "words", COUNTS, "Python's integers count them"),
    ("*", "batch_size bucket_bytes", ("1e30", "1e400", "2**62"), "all in one"),
    ("*", "ignore_index", ("-1", "0", "2**62"), "any label of int64"),
    ("*", "size data", ("2**62",), "a window or a data set that nobody has yet"),
    ("*", "correction mean slope start stop step", REAL, "any finite number"),
    ("*", "a b", (*REAL,), "the ends of an interval"),
    ("*", "std gain", ("0", *POSITIVE), "a width, perhaps 0"),
    ("*", "eps max_norm timeout", POSITIVE, "a positive number"),
    ("*", "max_norm", ("inf",), "no limit, only the norm"),
    ("*", "p label_smoothing", SHARES, "a share from 0 to 1"),
    ("*", "min max backend dtype device copy bias weight stop n_cols stride stream max_version dl_device generator "
     "root sampler split communication_dtype selection api_version", ("None",), "an optional argument"),
    ("*", "dl_device* max_version*", ("0",), "DLPack's numbers"),
    ("netcl.functional", "weight", ("bools", "integers", "complexes"), "a table of any dtype"),
    ("netcl.functional", "rtol", ("None", *REAL[1:]), "a share of the largest singular value, or its default"),
    ("netcl.functional.matrix_power", "n", INTEGERS, "a power, perhaps of the inverse"),
    ("netcl.functional.matrix_norm", "ord", ("None", "-1", "inf", "-inf"), "a norm that matrices have"),
    ("netcl.functional.vector_norm", "ord", ("inf", "-inf", *REAL[:-1]), "any power"),
    ("netcl.functional", "offset", INTEGERS, "a diagonal, without elements beyond the corners"),
    ("netcl.functional", "n s axes", ("None",), "sizes and axes of transforms have defaults"),
    ("netcl.functional", "s*", ("-1",), "an axis as it is"),
    ("netcl.functional", "axes", ("empty list",), "shifts along no axis"),
    ("netcl.fft", "d", ("-1", *REAL[2:]), "a distance, either way"),
    ("netcl.data netcl.distributed.Dist", "data arrays", (*TENSORS, "array"), "rows of any array"),
    ("netcl.data.DataLoader", "progress", ("function",), "what is called as progress(batches, total=...)"),
    ("netcl.distributed.rank_zero_only", "function", ("function",), "a function"),
    ("netcl.distributed.broadcast_object", "value", ANYTHING, "whatever can be pickled"),
    ("netcl.distributed.reduce_metric", "value", (*REAL, "NaN", "inf", "-inf", "integers"), "a metric may be NaN"),
    ("netcl.distributed", "target model", ("empty list", "empty dict"), "nothing to be done"),
    ("netcl.optim", "params*", ("0-d array", "array"), "a host array"),
    ("netcl.optim netcl.distributed", "max_norm clip_value norm_type new_scale init_scale growth_factor factor alpha "
     "backoff_factor betas* min_scale warmup_start dampening min_lr threshold eta_min lr momentum weight_decay "
     "lr_decay initial_accumulator_value momentum_decay rho lambd t0 etas* step_sizes* eps_root r weight_lr_power",
     ("0", *POSITIVE), "a hyper-parameter in its range, which tests of its own hold"),
    ("netcl.optim", "norm_type clip_value", ("inf",), "the largest magnitude; no limit"),
    ("netcl.optim", "max_norm", ("None",), "no clipping"),
    ("netcl.optim", "eps patience cooldown warmup_steps", ("0",), "none"),
    ("netcl.optim", "T_max total_steps patience cooldown warmup_steps", ("2**62",), "a very long run"),
    ("netcl.optim", "max_iter max_eval history_size", ("2**62",), "a very long run"),
    ("netcl.optim.Muon", "ns_steps", ("0",), "no iteration"),
    ("netcl.optim", "adjust_lr_fn max_eval line_search_fn eps*", ("None",), "an optional argument"),
    ("netcl.optim.PerTensor", "direction ratio", ("function",), "a function"),
    ("netcl.optim", "trust_coefficient eps* d tolerance_grad tolerance_change ns_coefficients*", ("0", *POSITIVE),
     "a number in its range"),
    ("netcl.optim", "beta2_decay ns_coefficients*", ("-1", "0"), "an exponent or a coefficient"),
    ("netcl.optim.LBFGS", "params*", TENSORS, "Tensors anywhere"),
    ("netcl.optim", "T_max total_steps patience cooldown", ("2**62",), "a very long run"),
    ("netcl.optim", "gamma power swa_lr swa_lr* base_lr base_lr* max_lr max_lr* base_momentum base_momentum* "
     "max_momentum max_momentum* start_factor end_factor pct_start div_factor final_div_factor", ("0", *POSITIVE),
     "a setting of a schedule in its range"),
    ("netcl.optim", "total_iters step_size milestones* T_0 T_mult stable_steps decay_steps warmup_steps anneal_epochs "
     "step_size_up step_size_down read_every epochs steps_per_epoch steps", ("0", "2**62"), "none, or a very long run"),
    ("netcl.optim", "milestones", ("empty list", "no elements"), "no milestones"),
    ("netcl.optim.MultiplicativeLR", "lr_lambda lr_lambda*", ("function",), "a function, first called at step 1"),
    ("netcl.optim", "last_epoch", ("-1", "0", "2**62"), "the steps that are over, and -1 for none"),
    ("netcl.optim", "scaler scale_fn step_size_down total_steps epochs steps_per_epoch optimizer ax", ("None",),
     "an optional argument"),
    ("netcl.optim.ReduceLROnPlateau.step", "metric", (*REAL, "NaN", "inf", "-inf"), "a metric may be NaN"),
    ("netcl.optim.clip", "parameters", ("empty list", *TENSORS), "one Tensor, or nothing to clip"),
    ("netcl.optim.AMPGradScaler.scale", "outputs", TENSORS, "a loss of any shape, anywhere"),
    ("netcl.optim.Rule", "hyper update", ("function",), "a function"),
    ("netcl.optim", "decay clip_factor total_norm max_norm*", ("0", "inf", *POSITIVE), "a number in its range"),
    ("netcl.optim", "every every_k count", ("2**62",), "a very long run"),
    ("netcl.optim", "foreach name", ("None", "str"), "an optional argument"),
    ("netcl.optim.clip_grad_adaptive", "eps", ("inf",), "no limit"),
    ("netcl.optim.decay_groups", "no_decay no_decay*", ("str", "empty list", "no elements"), "names, or none"),
    ("netcl.optim.clip_grad_norm_each", "parts parts*", ("empty list", *TENSORS), "Tensors without gradients"),
    ("netcl.optim.get_total_norm", "tensors tensors*",
     ("empty list", "elsewhere", "rank 4", "0-d Tensor", "no elements"),
     "any Tensors, or none"),
    ("netcl.optim.Optimizer.register", "hook", ("function",), "a function"),
    ("netcl.optim.AMPGradScaler.set_", "new_factor", ("0", *POSITIVE), "a factor in its range"),
    ("netcl.optim.Rule", "state state*", ("empty list", "empty dict", "str"), "names of state, or none"),
    ("netcl.nn", "prefix name", ("str",), "a name"),
    ("netcl.nn.Module.named", "prefix", ("str",), "a name"),
]  # fmt: skip


def accepted(function: str, parameter: str, value: str) -> bool:
    return any(
        (functions == "*" or function.startswith(tuple(functions.split())))
        and (parameters == "*" or parameter in parameters.split())
        and value in values
        for functions, parameters, values, _ in TAKEN
    )


# -- calls -----------------------------------------------------------------------------------------------------------


def places(args: tuple[Any, ...], named: dict[str, Any], skip_first: bool) -> Iterator[tuple[Any, ...]]:
    """Where a value can be put: an argument, or an element of one that is a tuple or a list."""
    for key in [*range(skip_first, len(args)), *named]:
        value = args[key] if isinstance(key, int) else named[key]
        yield (key,)
        if type(value) in (tuple, list):
            yield from ((key, index) for index in range(len(value)))


def spoiled(args: tuple[Any, ...], named: dict[str, Any], place: tuple[Any, ...], bad: Any) -> tuple[Any, Any]:
    args_, named_ = list(args), dict(named)
    holder: Any = args_ if isinstance(place[0], int) else named_
    if len(place) == 2:
        whole = list(holder[place[0]])
        whole[place[1]] = bad
        bad = type(holder[place[0]])(whole)
    holder[place[0]] = bad
    return tuple(args_), named_


def parameter_name(function: Any, place: tuple[Any, ...]) -> str:
    """The name under which an argument goes in, with a star for an element of it."""
    name = place[0]
    if isinstance(name, int):
        names = list(inspect.signature(function).parameters)
        name = names[min(name, len(names) - 1)]
    return f"{name}*" if len(place) == 2 else str(name)


def settle(result: Any) -> None:
    """Look at a result, so that what was deferred is raised."""
    if isinstance(result, netcl.Tensor):
        result.numpy()
    elif isinstance(result, tuple | list):
        for part in result:
            settle(part)
    elif isinstance(result, Iterator):
        settle(list(result))
    elif hasattr(result, "__enter__") and not isinstance(result, netcl.autograd.Tape):
        with result:
            pass


# -- what a refused call must leave ----------------------------------------------------------------------------------


def picture(x: Any, depth: int = 0) -> Any:
    """All that can be seen of an argument."""
    if isinstance(x, netcl.Tensor):
        grad = None if x.grad is None else x.grad.numpy().tobytes()
        where = (x.shape, x.strides, x.offset, str(x.dtype), str(x.device))
        return where, x.numpy().tobytes(), x.requires_grad, grad, id(x.node), x.storage.version
    if isinstance(x, np.ndarray):
        return x.tobytes(), x.shape, x.dtype
    if isinstance(x, nn.Module):
        return picture(dict(vars(x)), depth + 1)
    if isinstance(x, optim.Optimizer | optim.PerLabel | optim.MultiSteps):
        return picture([{**group, "params": list(group["params"])} for group in x.param_groups], depth + 1)
    if hasattr(x, "state_dict") and not isinstance(x, type):
        return picture(x.state_dict(), depth + 1)
    if isinstance(x, netcl.random.Generator):
        return x.state()
    if isinstance(x, dict) and depth < 5:
        return {key: picture(value, depth + 1) for key, value in x.items()}
    if isinstance(x, tuple | list) and depth < 5:
        return [picture(value, depth + 1) for value in x]
    return x if isinstance(x, str | int | float | complex | bool | None) else id(x)


def surroundings() -> Any:
    state = default_generator.state(), copy.deepcopy(host_generator().bit_generator.state)
    return netcl.get_backend(), state, netcl.autocast_state.product_dtype(), netcl.autograd.is_recording()


def own_words(error: BaseException) -> bool:
    """Whether a ``raise`` of netcl's raised this."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not trace.tb_frame.f_code.co_filename.startswith(PACKAGE):
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def is_operator_refusal(name: str, error: BaseException) -> bool:
    """Python's own words where an operator returned NotImplemented, or NumPy's where its array comes first."""
    words = ("unsupported operand type", "not supported between instances", "concat", "ufunc")
    return (
        name.startswith("operator.")
        and isinstance(error, TypeError | ValueError)
        and any(word in str(error) for word in words)
    )


def outcome(name: str, function: Any, args: Any, named: Any) -> tuple[str, str]:
    """What came of a call: "taken", "refused", or the fault."""
    before = [picture(x) for x in (*args, *named.values())], surroundings()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            settle(function(*args, **named))
        return "taken", ""
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        if ([picture(x) for x in (*args, *named.values())], surroundings()) != before:
            return "changed something", told
        own = isinstance(error, NetclError) or (
            isinstance(error, TypeError | ValueError | IndexError | BufferError | FileNotFoundError)
            and own_words(error)
        )
        if own or is_operator_refusal(name, error):
            return "refused", told
        return "raw error", told


def has_own_operand(name: str, function: Any) -> bool:
    """Whether the first argument is what the method or the operator in place belongs to."""
    method = isinstance(function, types.FunctionType) and "." in function.__qualname__
    return method or name.startswith(("operator.i", "operator.getitem", "operator.setitem", "Tensor."))


APART = ("netcl.functional.broadcast_arrays", "netcl.meshgrid", "netcl.result_type")
"""Functions that never bring their Tensors together."""


def has_tensor(args: tuple[Any, ...], named: dict[str, Any], place: tuple[Any, ...]) -> bool:
    """Whether there is a Tensor besides the argument at this place."""
    rest = [x for key, x in [*enumerate(args), *named.items()] if key != place[0]]
    return any(isinstance(x, netcl.Tensor) for x in rest)


def faults_of(name: str, values: dict[str, Callable[[], Any]], counts: Counter[str]) -> list[str]:
    found = []
    function, args, named = ENTRIES[name]()
    skip = has_own_operand(name, function)
    for place in places(args, named, skip):
        whole = args[place[0]] if isinstance(place[0], int) else named[place[0]]
        for label, make in values.items():
            if label == "True" and isinstance(whole, bool):
                continue
            function, args, named = ENTRIES[name]()
            args, named = spoiled(args, named, place, make())
            came, told = outcome(name, function, args, named)
            counts[came] += 1
            parameter = parameter_name(function, place)
            if came not in ("taken", "refused"):
                found.append(f"{name}({parameter}={label}): {came}: {told[:150]}")
            elif came == "taken" and label == "elsewhere" and name not in APART and has_tensor(args, named, place):
                found.append(f"{name}({parameter}=elsewhere): Tensors of two devices taken")
            elif came == "taken" and not accepted(name, parameter, label):
                found.append(f"{name}({parameter}={label}): taken in silence")
    return found


AREAS = sorted({name.rpartition(".")[0] for name in ENTRIES})


def test_every_public_name_has_a_valid_call():
    names = set(public())
    known = {name for name in ENTRIES if not name.startswith(("operator.", "Tensor."))}
    assert names - known == set(NOT_CALLED_BY_USERS) & names
    assert known <= names


@pytest.fixture
def on_numpy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(netcl.backends, "_default", None)  # distributed.init() sets it
    with netcl.use_backend("numpy"):
        yield


@pytest.mark.parametrize("name", ENTRIES)
def test_valid_calls_are_valid(on_numpy, name):
    function, args, named = ENTRIES[name]()
    settle(function(*args, **named))


@pytest.mark.parametrize("area", AREAS)
def test_bad_arguments(on_numpy, area, record_property):
    counts: Counter[str] = Counter()
    names = [name for name in ENTRIES if name.rpartition(".")[0] == area]
    found = [fault for name in names for fault in faults_of(name, {**PLAIN, **ARRAYS}, counts)]
    record_property("calls", dict(counts))
    assert not found, "\n".join([f"{len(found)} faults in {sum(counts.values())} calls", *found])


SAMPLE = (
    *[name for name in ENTRIES if name.startswith(("netcl.functional", "operator"))][::16],
    "netcl.asarray", "netcl.full", "netcl.arange", "operator.getitem by Tensor", "operator.setitem",
)  # fmt: skip
SPOILERS = ("None", "str", "-1", "NaN", "1e30", "2**62", "array", "elsewhere", "bools", "integers", "no elements")


def test_bad_arguments_on_every_backend(backend, in_short, on_numpy):
    values = {label: make for label, make in {**PLAIN, **ARRAYS}.items() if label in SPOILERS}
    counts: Counter[str] = Counter()
    with netcl.use_backend(backend):
        found = [fault for name in SAMPLE[:: 3 if in_short else 1] for fault in faults_of(name, values, counts)]
    assert not found, "\n".join([f"{len(found)} faults in {sum(counts.values())} calls", *found])
