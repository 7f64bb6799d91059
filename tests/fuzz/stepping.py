"""Running a case of kind ``steps``: each action on the backend and on the oracle, and where the two are compared."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

import netcl
import netcl.autograd as ag
from netcl.amp import GradScaler
from netcl.errors import HyperParameterError, NetclError
from netcl.optim import clip_grad_norm, clip_grad_norm_device, clip_grad_value
from tests.fuzz import optimizers, rules, schedules
from tests.fuzz.bounds import FORMATS, Bounded, compute_format, worst
from tests.fuzz.case import Disagreement, Values, stored
from tests.fuzz.optimizers import DEFAULTS, FIELDS, LossScale, Parameter
from tests.fuzz.schedules import Schedule
from tests.fuzz.steps import Group, Steps


def run(case: Steps, backend: str) -> None:
    """Raises :class:`Disagreement` at the first thing that is not as the oracle has it."""
    _Run(case, backend).run()


class _Run:
    def __init__(self, case: Steps, backend: str) -> None:
        self.case = case
        self.backends = [backend, "numpy"]
        self.wide = netcl.get_backend(backend).supports(netcl.float64)
        self.parameters: list[Any] = []
        self.oracle: list[Parameter] = []
        self.gradients: dict[int, Bounded] = {}
        self.held: tuple[Any, Any] | None = None
        self.hyper: list[dict[str, Any]] = []
        self.sources: list[Group] = []
        self.scale = LossScale(*(self._scaler_options().values())) if case.scaler else None
        self.late = False

    def _scaler_options(self) -> dict[str, Any]:
        assert self.case.scaler is not None
        names = ("init_scale", "growth_factor", "backoff_factor", "growth_interval", "min_scale")
        return {name: self.case.scaler[name] for name in names}

    # -- making ----------------------------------------------------------------------------------------------------

    def _kind(self) -> Any:
        return (
            rules.optimizer(*self.case.rule)
            if self.case.optimizer == "Own"
            else getattr(netcl.optim, self.case.optimizer)
        )

    def _tensors(self, group: Group) -> list[Any]:
        dtypes = [each.dtype if self.wide or each.dtype != "float64" else "float32" for each in group.weights]
        values = [stored(each.values.array(), dtype) for each, dtype in zip(group.weights, dtypes, strict=True)]
        number = len(self.sources)
        for x, dtype in zip(values, dtypes, strict=True):
            self.oracle.append(Parameter(Bounded(x, compute_format(dtype)), dtype, number))
        self.sources.append(group)
        if self.case.memory == "plain":
            return [np.ascontiguousarray(x.astype(dtype)) for x, dtype in zip(values, dtypes, strict=True)]
        made: list[Any] = [None] * len(values)
        if self.case.memory == "shared":
            for dtype in dict.fromkeys(dtypes):
                of = [i for i, other in enumerate(dtypes) if other == dtype]
                base = netcl.asarray(
                    np.concatenate([values[i].reshape(-1) for i in of]), dtype=dtype, device=self.backends[0]
                )
                start = 0
                for i in of:
                    made[i] = netcl.reshape(base[start : start + values[i].size], values[i].shape)
                    made[i].requires_grad = True
                    start += values[i].size
            return made
        return [
            netcl.asarray(x, dtype=dtype, device=self.backends[0], requires_grad=True)
            for x, dtype in zip(values, dtypes, strict=True)
        ]

    def _build(self, groups: list[dict[str, Any]], defaults: Mapping[str, Any]) -> Any:
        extra = {"backend": self.backends[0]} if self.case.memory == "plain" else {}
        return self._kind()(groups, **defaults, **extra)

    def _start(self) -> bool:
        groups = []
        for group in self.case.groups:
            tensors = self._tensors(group)
            self.parameters += tensors
            groups.append({"params": tensors, **group.hyper})
        try:
            self.optimizer = self._build(groups, self.case.defaults)
        except HyperParameterError as error:
            if self._may_refuse([group.hyper for group in self.case.groups]):
                return False
            raise Disagreement("refused", f"building the optimizer: {error}") from error
        self.hyper = [self._complete(group.hyper) for group in self.case.groups]
        self.schedule = self._new_schedule(self.optimizer)
        self.rates = Schedule(self.case.schedule, self.hyper) if self.case.schedule else None
        self.scaler = None if self.scale is None else GradScaler(**self._scaler_options())
        if self.scaler is not None:
            self.scaler.scale(netcl.asarray(1.0, device=self.backends[0]))
        return True

    def _complete(self, hyper: Mapping[str, Any]) -> dict[str, Any]:
        return {**DEFAULTS[self.case.optimizer], **self.case.defaults, **hyper}

    def _may_refuse(self, hypers: list[Mapping[str, Any]]) -> bool:
        """Groups may not differ in what is chosen for the whole optimizer, and Nesterov needs momentum everywhere."""
        merged = [{**self.case.defaults, **hyper} for hyper in hypers]
        return any({"amsgrad", "centered"} & set(hyper) for hyper in hypers) or any(map(self._senseless, merged))

    def _senseless(self, hyper: Mapping[str, Any]) -> bool:
        momentum = hyper.get("momentum", 0.9 if self.case.optimizer == "Momentum" else 0.0)
        return bool(hyper.get("nesterov")) and (momentum <= 0 or hyper.get("dampening", 0.0) != 0.0)

    def _new_schedule(self, optimizer: Any) -> Any:
        return None if self.case.schedule is None else schedules.made(self.case.schedule, optimizer)

    # -- the actions -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        if not self._start():
            return
        with contextlib.suppress(_Refused):
            for action in self.case.actions:
                getattr(self, f"_do_{action.name}")(action.options)

    def _do_gradients(self, options: Mapping[str, Any]) -> None:
        drawn: dict[int, Any] = {}
        for i, p in enumerate(self.oracle):
            if i in options["missing"]:
                continue
            style = options["odd"][1] if options["odd"] and options["odd"][0] == i else options["style"]
            x = Values(p.value.value.shape, style, options["seed"] + i).array()
            with np.errstate(all="ignore"):
                drawn[i] = stored(x if self.scale is None else x * self.scale.scale, p.dtype)
        if self.case.memory == "plain":
            self.gradients = {i: Bounded(x, self.oracle[i].format) for i, x in drawn.items()}
            return
        if options["how"] != "assign":  # what is added to is changed in place, as in torch
            self._held_is_in_use()
        if options["how"] == "assign":
            for i, p in enumerate(self.parameters):
                p.grad = (
                    None if i not in drawn else netcl.asarray(drawn[i], dtype=self.oracle[i].dtype, device=p.device)
                )
            self.gradients = {}
        elif drawn:
            self._backward(drawn)
        for i, x in drawn.items():
            p = self.oracle[i]
            before = self.gradients.get(i)
            new = Bounded(x, p.format)
            if before is not None:
                new = (before + new).stored(FORMATS[p.dtype])
            self.gradients[i] = new
        self._check_held()

    def _backward(self, drawn: Mapping[int, Any]) -> None:
        with ag.Tape() as tape:
            total: Any = None
            for i, x in drawn.items():
                p = self.parameters[i]
                part = netcl.sum(p * netcl.asarray(x, dtype=self.oracle[i].dtype, device=p.device))
                total = part if total is None else total + part
        tape.backward(total)

    def _do_hold(self, options: Mapping[str, Any]) -> None:
        index = options["index"] % len(self.parameters)
        gradient = self.parameters[index].grad
        if gradient is not None:
            self.held = gradient, gradient.numpy()

    def _check_held(self) -> None:
        if self.held is None:
            return
        gradient, before = self.held
        if any(gradient is p.grad for p in self.parameters):
            return  # it is in use, and may be added to and scaled
        after = gradient.numpy()
        if not np.array_equal(before, after, equal_nan=True):
            raise Disagreement("held", f"a gradient that is held was {_text(before)} and is {_text(after)}")

    def _do_read_gradients(self, options: Mapping[str, Any]) -> None:
        for i, p in enumerate(self.parameters):
            expected = self.gradients.get(i)
            if (p.grad is None) != (expected is None):
                raise Disagreement("gradient", f"that of parameter {i} is {p.grad} where {expected} was expected")
            if expected is not None:
                difference = worst(p.grad.numpy(), expected)
                if difference:
                    raise Disagreement("gradient", f"of parameter {i}: {difference}")
                self.gradients[i] = Bounded(p.grad.numpy(), self.oracle[i].format)

    def _do_clip(self, options: Mapping[str, Any]) -> None:
        max_norm = options["max_norm"]
        self._held_is_in_use()
        if options["kind"] == "value":
            limit = max_norm if math.isfinite(max_norm) else 1.0
            clip_grad_value(self.parameters, limit)
            for i, g in self.gradients.items():
                dtype = self.oracle[i].dtype
                kept = float(stored(limit, dtype))
                bound = Bounded(kept, g.format, abs(limit - kept) + FORMATS[dtype].tiny)
                self.gradients[i] = g.minimum(bound).maximum(-bound)
            return
        if not self.gradients:
            return
        expected = optimizers.norm(list(self.gradients.values()), options["norm_type"])
        try:
            call = clip_grad_norm if options["kind"] == "host" else clip_grad_norm_device
            total = call(self.parameters, max_norm, options["norm_type"])
        except NetclError as error:
            raise Disagreement("refused", f"clip_grad_norm: {error}") from error
        compute = "float64" if any(self.oracle[i].dtype == "float64" for i in self.gradients) else "float32"
        known = (
            expected
            if options["kind"] == "host"
            else Bounded(expected.value, FORMATS[compute], expected.error).stored(FORMATS[compute])
        )
        difference = worst(np.asarray(float(total)), known)
        if difference:
            raise Disagreement("norm", f"{options['kind']}, p = {options['norm_type']}: {difference}")
        self._scale_gradients(optimizers.clip_factor(expected, max_norm), round=True)

    def _scale_gradients(self, factor: Bounded, *, round: bool) -> None:
        for i, g in self.gradients.items():
            scaled = g * factor
            self.gradients[i] = scaled.stored(FORMATS[self.oracle[i].dtype]) if round else scaled

    def _held_is_in_use(self) -> None:
        if self.held is not None and any(self.held[0] is p.grad for p in self.parameters):
            self.held = None

    def _do_step(self, options: Mapping[str, Any]) -> None:
        if not self.gradients:
            self._refuses(lambda: self._step(options, {}), NetclError, "a step without gradients")
            return
        gradients = dict(self.gradients)
        live = {p.dtype for p in self.oracle}
        mixed = "float64" in live and len(live) > 1
        max_norm = options["max_norm"]
        overflow = self.scale is not None and any(not np.isfinite(g.value).all() for g in gradients.values())
        uncertain = self.scale is not None and any(np.isinf(g.error).any() for g in gradients.values())
        if uncertain:  # an accumulation that may or may not have overflown
            self._do_zero({"to_none": True})
            return
        before = self._bytes() if overflow else None
        if options["unscale"] and self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
            self._held_is_in_use()
        try:
            self._step(options, gradients)
        except HyperParameterError as error:
            if mixed and max_norm is not None:
                if self.scaler is not None:
                    self._renew_scaler()
                if options["unscale"]:
                    self._do_zero({"to_none": True})
                return
            if self.late:  # state was asked for that the optimizer was built without
                raise _Refused from error
            raise Disagreement("refused", f"step: {error}") from error
        if self.scale is not None:
            unit = Bounded(1.0, FORMATS["float32"]) / self.scale.scale
            seen = {i: g * unit for i, g in gradients.items()}
            if options["unscale"]:
                seen = {i: g.stored(FORMATS[self.oracle[i].dtype]) for i, g in seen.items()}
                self.gradients = seen
            gradients = seen
            self.scale.update(overflow)
        if overflow:
            if self._bytes() != before:
                raise Disagreement("skip", "a skipped step changed parameters or state")
            if options["unscale"]:
                self._do_zero({"to_none": True})
            return
        if max_norm is not None:
            factor = optimizers.clip_factor(optimizers.norm(list(gradients.values()), 2.0), max_norm)
            gradients = {i: g * factor for i, g in gradients.items()}
        for i, g in gradients.items():
            p = self.oracle[i]
            optimizers.step(self.case.optimizer, p, g, self.hyper[p.group], self.case.rule)

    def _step(self, options: Mapping[str, Any], gradients: Mapping[int, Bounded]) -> None:
        if self.case.memory == "plain":
            given = [gradients[i].value.astype(p.dtype) if i in gradients else None for i, p in enumerate(self.oracle)]
            self.optimizer.step(grads=given, max_norm=options["max_norm"])
        elif self.scaler is not None:
            self.scaler.step(self.optimizer, max_norm=options["max_norm"])
            self.scaler.update()
        else:
            self.optimizer.step(max_norm=options["max_norm"])

    def _refuses(self, call: Any, kind: type[Exception], what: str) -> None:
        before = self._bytes()
        try:
            call()
        except kind:
            if self._bytes() != before:
                raise Disagreement("refused", f"{what} was refused and changed something") from None
            return
        raise Disagreement("accepted", what)

    def _bytes(self) -> list[bytes]:
        state = self.optimizer.state_dict()["state"]
        found = [self._host(p).tobytes() for p in self.parameters]
        for i in sorted(state):
            found += [np.asarray(state[i][name]).tobytes() for name in sorted(state[i])]
        return found

    def _do_zero(self, options: Mapping[str, Any]) -> None:
        if self.case.memory == "plain":
            self.gradients = {}
            return
        if not options["to_none"]:
            self._held_is_in_use()
        self.optimizer.zero_grad(set_to_none=options["to_none"])
        if options["to_none"]:
            self.gradients = {}
        else:
            self.gradients = {i: Bounded(np.zeros(g.value.shape), g.format) for i, g in self.gradients.items()}
        self._check_held()

    def _do_set(self, options: Mapping[str, Any]) -> None:
        number = options["group"] % len(self.hyper)
        name, value = options["name"], options["value"]
        changed = {**self.hyper[number], name: value}
        try:
            self.optimizer.param_groups[number][name] = value
        except HyperParameterError as error:
            if self._senseless(changed) or name in ("amsgrad", "centered", "momentum", "master_weights"):
                return
            raise Disagreement("refused", f"{name} = {value}: {error}") from error
        fixed = name in ("amsgrad", "centered") and value != self.hyper[number][name]
        if fixed or self._senseless(changed):
            raise Disagreement("accepted", f"{name} = {value} beside {changed}")
        if name == "lr" and self.rates is not None:
            self.rates.assigned(number, value)
        # The schedule of the oracle holds the same dict.
        self.hyper[number][name] = value
        self.late |= name in ("amsgrad", "centered", "momentum", "master_weights")

    def _do_write(self, options: Mapping[str, Any]) -> None:
        index = options["index"] % len(self.parameters)
        p, oracle = self.parameters[index], self.oracle[index]
        x = stored(Values(oracle.value.value.shape, options["style"], options["seed"]).array(), oracle.dtype)
        p[...] = netcl.asarray(x, dtype=oracle.dtype, device=p.device)
        # A master weight that the new value happens to be the rounding of is gone on from.
        error = np.abs(oracle.value.value - x)
        near = error <= oracle.stored().error
        oracle.value = Bounded(x, oracle.format, np.where(near & np.isfinite(error), error + oracle.value.error, 0.0))

    def _do_add_group(self, options: Mapping[str, Any]) -> None:
        group: Group = options["group"]
        known = len(self.oracle), len(self.sources)
        tensors = self._tensors(group)
        hyper = self._complete(group.hyper)
        try:
            self.optimizer.add_param_group({"params": tensors, **group.hyper})
        except HyperParameterError as error:
            del self.oracle[known[0] :], self.sources[known[1] :]
            needs = {"momentum", "amsgrad", "centered", "master_weights"} & set(hyper)
            if not needs and not self._senseless(hyper):
                raise Disagreement("refused", f"add_param_group: {error}") from error
            return
        self.parameters += tensors
        self.hyper.append(hyper)

    def _do_schedule(self, options: Mapping[str, Any]) -> None:
        if self.schedule is None or self.rates is None:
            return
        if self.case.schedule and self.case.schedule["name"] == "plateau":
            self.schedule.step(options["metric"])
        else:
            self.schedule.step()
        self.rates.step(options["metric"])

    def _do_reload(self, options: Mapping[str, Any]) -> None:
        state = self.optimizer.state_dict()
        if options["where"] == "same":
            self.optimizer.load_state_dict(state)
            return
        self._compare(state)
        if options["where"] == "other":
            self.backends.reverse()
        hosts = [self._host(p) for p in self.parameters]
        self.parameters = [
            x.copy()
            if self.case.memory == "plain"
            else netcl.asarray(x, dtype=p.dtype, device=self.backends[0], requires_grad=True)
            for x, p in zip(hosts, self.oracle, strict=True)
        ]
        groups = [
            {
                "params": [x for x, p in zip(self.parameters, self.oracle, strict=True) if p.group == number],
                **source.hyper,
            }
            for number, source in enumerate(self.sources)
        ]
        schedule = None if self.schedule is None else self.schedule.state_dict()
        self.gradients, self.held = {}, None
        try:
            self.optimizer = self._build(groups, self.case.defaults)
            self.schedule = self._new_schedule(self.optimizer)
            self.optimizer.load_state_dict(state)
            if schedule is not None:
                self.schedule.load_state_dict(schedule)
        except NetclError as error:
            # State that was asked for late is not there in an optimizer that is built as the first one was.
            needs = any(self._needs_more(number) for number in range(len(self.sources)))
            if needs:
                raise _Refused from error
            raise Disagreement("resume", f"{type(error).__name__}: {error}") from error
        self._renew_scaler()

    def _needs_more(self, number: int) -> bool:
        built = {**self.case.defaults, **self.sources[number].hyper}
        names = ("momentum", "amsgrad", "centered", "master_weights")
        return any(self.hyper[number].get(name) != built.get(name, self.hyper[number].get(name)) for name in names)

    def _renew_scaler(self) -> None:
        if self.scaler is None:
            return
        state = self.scaler.state_dict()
        self.scaler = GradScaler(**self._scaler_options())
        self.scaler.load_state_dict(state)
        self.scaler.scale(netcl.asarray(1.0, device=self.backends[0]))

    # -- comparing -------------------------------------------------------------------------------------------------

    def _host(self, x: Any) -> Any:
        return np.array(x) if self.case.memory == "plain" else x.numpy()

    def _do_read(self, options: Mapping[str, Any]) -> None:
        self._compare(self.optimizer.state_dict())
        for number, (group, hyper) in enumerate(zip(self.optimizer.param_groups, self.hyper, strict=True)):
            if not math.isclose(group["lr"], hyper["lr"], rel_tol=1e-12, abs_tol=1e-300):
                raise Disagreement("rate", f"group {number} has {group['lr']!r} where {hyper['lr']!r} was expected")
        if self.scaler is not None and self.scale is not None:
            found = self.scaler.get_scale(), self.scaler.steps_skipped
            if found != (self.scale.scale, self.scale.skipped):
                raise Disagreement(
                    "scale", f"(scale, skipped) is {found} where {(self.scale.scale, self.scale.skipped)} was expected"
                )

    def _compare(self, state: Mapping[str, Any]) -> None:
        """Parameters, step counts and state; the oracle then continues from what was read."""
        order = [i for number in range(len(self.hyper)) for i, p in enumerate(self.oracle) if p.group == number]
        for position, i in enumerate(order):
            p, label = self.oracle[i], f"parameter {i} ({self.oracle[i].dtype}, group {self.oracle[i].group})"
            entry = state["state"][position]
            if int(entry["step"]) != p.steps:
                raise Disagreement("steps", f"{label} counts {entry['step']} where {p.steps} was expected")
            actual = self._host(self.parameters[i])
            difference = worst(actual, p.stored())
            if difference:
                raise Disagreement("parameter", f"{label}: {difference}")
            hyper = self.hyper[p.group]
            for field, needed in FIELDS[self.case.optimizer].items():
                if field not in p.state or (needed and not hyper.get(needed)):
                    continue
                if field not in entry:
                    if p.state[field].value.any():
                        raise Disagreement("state", f"{label} lacks {field}")
                    continue
                difference = worst(entry[field], p.state[field])
                if difference:
                    raise Disagreement("state", f"{field} of {label}: {difference}")
                p.state[field] = Bounded(entry[field], p.format)
            self._go_on_from(p, actual, entry)

    def _go_on_from(self, p: Parameter, actual: Any, entry: Mapping[str, Any]) -> None:
        kept = Bounded(actual, p.format)
        if p.narrow and self.hyper[p.group].get("master_weights", True) and "master" in entry and p.steps:
            master = np.asarray(entry["master"], np.float64)
            with np.errstate(invalid="ignore"):
                same = (stored(master, p.dtype) == kept.value) & np.isfinite(master)
            difference = worst(np.where(same, master, p.value.value), p.value)
            if difference:
                raise Disagreement("state", f"master weights of a {p.dtype} parameter: {difference}")
            kept = Bounded(np.where(same, master, kept.value), p.format)
        p.value = kept


class _Refused(Exception):
    """The rest of the case cannot be run, for a reason that is in order."""


def _text(x: Any) -> str:
    flat = np.ravel(x)
    return f"{flat[:6].tolist()}{'…' if flat.size > 6 else ''}"
