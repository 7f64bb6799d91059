"""Memory that runs out at any point of a call leaves everything as it was, and usable: the call can be made again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl import distributed, nn
from netcl.amp import GradScaler
from netcl.backends.reference import ReferenceBackend
from netcl.errors import DeviceMemoryError
from netcl.optim import LAMB, SGD, Adafactor, Adam, RMSProp, clip_grad_norm, clip_grad_norm_device, clip_grad_value


@dataclass
class Scene:
    """Tensors with gradients, an optimizer perhaps, and what is about to be called."""

    tensors: list[Any]
    act: Any
    optimizer: Any = None
    kept: Any = None
    others: tuple[Any, ...] = ()
    made: Any = None

    def seen(self):
        """Everything that a user can see, by value; ``identities`` has what must stay the same object in a refusal."""
        found = [read(t) for t in self.tensors]
        found += [None if t.grad is None else read(t.grad) for t in self.tensors]
        found += [] if self.kept is None else [read(x) for x in self.kept]
        if self.optimizer is not None:
            state = self.optimizer.state_dict()
            found += [list(state["state"].values()), [len(g["params"]) for g in state["param_groups"]]]
        return found

    def identities(self):
        return [(t.grad is None, t.device, t.storage) for t in self.tensors]


def read(x):
    return (netcl.astype(x, "float32") if x.dtype.itemsize == 2 else x).numpy()


def variable(values, backend, dtype="float32"):
    host = netcl.asarray(np.asarray(values, "float32"), device=backend.device)
    x = netcl.astype(host, dtype)
    x.requires_grad = True
    return x


def three(backend, *, gradients=True):
    tensors = [
        variable([1.0, 2.0], backend),
        variable(np.ones((3, 2)), backend),
        variable([3.0, 4.0, 5.0], backend, "bfloat16"),
    ]
    for t in tensors if gradients else ():
        t.grad = variable(np.ones(t.shape), backend, t.dtype)
    return tensors


def construction(backend):
    tensors = three(backend)
    return Scene(tensors, lambda: Adam([{"params": tensors[:1]}, {"params": tensors[1:], "amsgrad": True}]))


def added_group(backend):
    tensors = three(backend)
    optimizer = SGD(tensors[:1], lr=0.5)
    optimizer.step()
    return Scene(
        tensors,
        lambda: optimizer.add_param_group({"params": tensors[1:], "momentum": 0.5}),
        optimizer,
        [tensors[0].grad],
    )


def first_step(backend):
    tensors = three(backend)
    optimizer = Adam(tensors, lr=0.5)
    return Scene(tensors, optimizer.step, optimizer)


def step_by_whole_tensors(optimizer):
    def scene(backend):
        tensors = three(backend)
        made = optimizer(tensors, lr=0.5)
        return Scene(tensors, made.step, made)

    return scene


def clipped_step(backend):
    tensors = three(backend)
    optimizer = Adam(tensors, lr=0.5)
    norm = clip_grad_norm_device(tensors[:2], 1.0)
    optimizer.step()
    return Scene(tensors, lambda: optimizer.step(max_norm=0.5), optimizer, [norm])


def step_of_some(backend):
    """Parameters that are skipped from one step on each need rows of their own, more than there is room for."""
    tensors = [variable([float(i)], backend) for i in range(10)]
    optimizer = Adam(tensors, lr=0.5)
    for t in tensors:
        t.grad = variable([1.0], backend)
    for inactive in tensors[:7]:
        optimizer.step()
        inactive.grad = None
    optimizer.step()
    tensors[7].grad = None
    return Scene(tensors, optimizer.step, optimizer)


def step_with_late_state(backend):
    tensors = three(backend)
    optimizer = RMSProp(tensors, lr=0.5, master_weights=False)
    optimizer.step()
    optimizer.param_groups[0].update(momentum=0.5, master_weights=True)

    return Scene(tensors, optimizer.step, optimizer)


def step_of_given_gradients(backend):
    """Gradients from elsewhere, while those in the arena are kept by somebody."""
    tensors = three(backend)
    optimizer = SGD(tensors, lr=0.5, momentum=0.5)
    optimizer.step()
    kept = [t.grad for t in tensors]
    for t in tensors:
        t.grad = variable(np.full(t.shape, 2.0), backend, t.dtype)
    return Scene(tensors, optimizer.step, optimizer, kept)


def loaded_optimizer(backend):
    tensors = three(backend)
    optimizer = Adam(tensors, lr=0.5)
    optimizer.step()
    state = optimizer.state_dict()
    optimizer.step()
    return Scene(tensors, lambda: optimizer.load_state_dict(state), optimizer)


def two_layers(backend):
    rng = np.random.default_rng(0)
    return nn.Sequential(nn.Linear(2, 3, generator=rng), nn.Linear(3, 2, generator=rng)).to(backend.device)


def loaded_state_of_another_rule(backend):
    """The checkpoint brings momentum, and its velocity, to an optimizer that has none; a clipped step waits."""
    tensors = three(backend)
    state = SGD(tensors, lr=0.5, momentum=0.5)
    state.step()
    state, optimizer = state.state_dict(), SGD(tensors, lr=0.5)
    optimizer.step()
    norm = clip_grad_norm_device(tensors[:2], 0.5)
    return Scene(tensors, lambda: optimizer.load_state_dict(state), optimizer, [norm])


def loaded_module(backend):
    model = two_layers(backend)
    half = variable([1.0, 2.0], backend, "bfloat16")
    model.half = half
    state = {name: 2.0 * values for name, values in model.state_dict().items()}
    return Scene(list(model.parameters()), lambda: model.load_state_dict(state))


def moved_module(backend):
    model = two_layers(backend)
    for p in model.parameters():
        p.grad = variable(np.ones(p.shape), backend)
    elsewhere = ReferenceBackend(name="elsewhere")
    return Scene(list(model.parameters()), lambda: model.to(elsewhere), others=(elsewhere,))


def recorded(tensors, *, retain):
    a, b, c = tensors
    with ag.Tape(retain=retain) as tape:
        y = netcl.matmul(b, netcl.sin(a)) * netcl.astype(c, "float32")
        loss = netcl.sum(y * y) + netcl.sum(a) + netcl.sum(b)
    return lambda: tape.backward(loss)


def backward_into_nothing(backend):
    tensors = three(backend, gradients=False)
    return Scene(tensors, recorded(tensors, retain=True))


def backward_added(backend):
    tensors = three(backend)
    return Scene(tensors, recorded(tensors, retain=True))


def backward_with_optimizer(backend):
    tensors = three(backend)
    optimizer = SGD(tensors, lr=0.5)
    kept = [t.grad for t in tensors[1:]]
    optimizer.zero_grad()
    tensors[0].grad = variable([1.0, 2.0], backend)
    return Scene(tensors, recorded(tensors, retain=True), optimizer, kept)


def zeroed(backend):
    tensors = three(backend)
    optimizer = SGD(tensors, lr=0.5)
    kept = [t.grad for t in tensors[:2]]
    tensors[0].grad = tensors[1].grad = None
    return Scene(tensors, lambda: optimizer.zero_grad(set_to_none=False), optimizer, kept)


def clip_of(function, *, owned):
    def scene(backend):
        tensors = three(backend)
        optimizer = SGD(tensors[:2], lr=0.5) if owned else None
        kept = []
        if owned:
            clip_grad_norm_device(tensors[:2], 100.0)
            kept = [clip_grad_norm_device(tensors[:2], 100.0)]
        given = tensors[:2] if owned else tensors
        return Scene(tensors, lambda: function(given, 0.5), optimizer, kept)

    return scene


def scaler_of(method):
    def scene(backend):
        tensors = three(backend)
        optimizer, scaler = Adam(tensors, lr=0.5), GradScaler(init_scale=4.0)
        scaler.scale(netcl.ones(1, device=backend.device))
        return Scene(tensors, lambda: getattr(scaler, method)(optimizer), optimizer)

    return scene


def data_parallel(backend):
    model = two_layers(backend)
    optimizer = SGD(model.parameters(), lr=0.5)
    return Scene(list(model.parameters()), lambda: distributed.DataParallel(model, optimizer), optimizer)


def sharded(backend):
    tensors = three(backend)
    return Scene(tensors, lambda: distributed.shard(tensors))


SCENES = {
    "construction": construction,
    "add_param_group": added_group,
    "first step": first_step,
    "step of LAMB": step_by_whole_tensors(LAMB),
    "step of Adafactor": step_by_whole_tensors(Adafactor),
    "clipped step": clipped_step,
    "step of some": step_of_some,
    "step with late state": step_with_late_state,
    "step of given gradients": step_of_given_gradients,
    "optimizer.load_state_dict": loaded_optimizer,
    "load_state_dict of another rule": loaded_state_of_another_rule,
    "module.load_state_dict": loaded_module,
    "module.to": moved_module,
    "backward": backward_into_nothing,
    "backward that adds": backward_added,
    "backward with an optimizer": backward_with_optimizer,
    "zero_grad": zeroed,
    "clip_grad_norm": clip_of(clip_grad_norm, owned=True),
    "clip_grad_norm_device": clip_of(clip_grad_norm_device, owned=True),
    "clip_grad_norm_device in place": clip_of(clip_grad_norm_device, owned=False),
    "clip_grad_value": clip_of(clip_grad_value, owned=False),
    "scaler.step": scaler_of("step"),
    "scaler.unscale_": scaler_of("unscale_"),
    "DataParallel": data_parallel,
    "shard": sharded,
}


class Failing:
    """Backends that have memory for so many more buffers."""

    def __init__(self, backends, left, error):
        # Operations of OpenCL take scratch from the queue's pool, as its alloc does.
        self.places = [backend.queue.pool if hasattr(backend, "queue") else backend for backend in backends]
        self.real = [place.alloc for place in self.places]
        self.left, self.error = left, error

    def __enter__(self):
        for place, real in zip(self.places, self.real, strict=True):

            def alloc(n, dtype, real=real):
                self.left -= 1
                if self.left < 0:
                    raise self.error("no memory is left")
                return real(n, dtype)

            place.alloc = alloc
        return self

    def __exit__(self, *_):
        for place, real in zip(self.places, self.real, strict=True):
            place.alloc = real


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


def run(make, backend, left=10**6, error=DeviceMemoryError):
    """The scene after its call, whether that failed, and what was seen before."""
    scene = make(backend)
    before = scene.seen(), scene.identities()
    with Failing((backend, *scene.others), left, error) as failing:
        try:
            made = scene.act()
        except MemoryError:
            made = None
    scene.made = made  # an optimizer lives as long as its scene
    return scene, failing.left < 0, before


@pytest.mark.parametrize("name", SCENES)
def test_all_or_nothing(name, backend):
    make = SCENES[name]
    undisturbed, _, _ = run(make, backend)
    expected = undisturbed.seen()
    for left in range(200):
        error = DeviceMemoryError if left % 2 else MemoryError
        scene, failed, (before, identities) = run(make, backend, left, error)
        if not failed:
            break
        assert equal(scene.seen(), before), f"{name}, buffer {left}: something has changed"
        assert scene.identities() == identities, f"{name}, buffer {left}: something has moved"
        scene.made = scene.act()
        assert equal(scene.seen(), expected), f"{name}, buffer {left}: it goes on otherwise"
    assert not failed
