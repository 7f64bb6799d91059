"""An optimizer of one's own: Lion in a rule of a few lines, fused into one kernel on OpenCL.

    python examples/custom_optimizer.py [--backend opencl] [--steps 200] [--print-source]

Source of the update: X. Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023.
"""

from __future__ import annotations

import argparse

import netcl
import netcl.autograd as ag
from netcl.expression import sign
from netcl.optim import Optimizer, Rule


def lion(p, g, s, h):
    """One element's update: a step of fixed size along the sign of an interpolated momentum, with decoupled decay."""
    update = sign(h.beta1 * s.exp_avg + h.one_minus_beta1 * g)
    exp_avg = h.beta2 * s.exp_avg + h.one_minus_beta2 * g
    return p - h.lr * (update + h.weight_decay * p), exp_avg


def hyper(group):
    """What ``h`` holds: numbers made in double from the group's hyper-parameters."""
    (beta1, beta2), shared = group["betas"], {name: group[name] for name in ("lr", "weight_decay")}
    return shared | {"beta1": beta1, "one_minus_beta1": 1 - beta1, "beta2": beta2, "one_minus_beta2": 1 - beta2}


class Lion(Optimizer):
    """Lion: evolved sign momentum."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, defaults, Rule(lion, hyper, state=("exp_avg",)))


def main(argv: list[str] | None = None) -> float:
    """Fit a line with Lion; returns the last loss."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default=None, help="numpy, opencl, opencl:gpu, ... (default: the best there is)")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--print-source", action="store_true", help="print the traced rule and the program made of it")
    options = parser.parse_args(argv)
    if options.backend:
        netcl.set_backend(options.backend)
    x = netcl.linspace(-1.0, 1.0, 64)
    y = 3.0 * x - 0.5
    slope, offset = netcl.zeros((), requires_grad=True), netcl.zeros((), requires_grad=True)
    opt = Lion([slope, offset], lr=0.03)
    if options.print_source:
        print(Lion([netcl.zeros((), requires_grad=True, device="numpy")]).source(), end="\n\n")
        print(opt.source(), end="\n\n")
    for _ in range(options.steps):
        with ag.Tape() as tape:
            loss = netcl.functional.mse_loss(slope * x + offset, y)
        tape.backward(loss)
        opt.step()
        opt.zero_grad()
    print(f"{netcl.get_backend().device}: y = {slope.item():.2f} x + {offset.item():.2f}, loss {loss.item():.5f}")
    return loss.item()


if __name__ == "__main__":
    main()
