"""Expressions: equal keys only for equal arithmetic, for kernels are cached under them."""

from __future__ import annotations

from netcl import expression as ex
from netcl.dtypes import float32


def key(function):
    return ex.trace(function, (float32,)).key


def test_a_constant_used_twice_is_two_constants():
    def once(x):
        two = ex.constant(2.0, float32)
        total = two + two
        return -total * -total

    def shared(x):
        two = ex.constant(2.0, float32)
        negative = -(two + two)
        return negative * negative

    def other(x):
        total = ex.constant(2.0, float32) + ex.constant(2.0, float32)
        return -total * total

    assert len({key(once), key(shared), key(other)}) == 3
    assert key(shared) == key(lambda x: shared(x))


def test_keys_tell_repeated_operands_apart():
    def first(x):
        a, b = ex.exp(x), ex.sqrt(x)
        return a * b + a

    def second(x):
        a, b = ex.exp(x), ex.sqrt(x)
        return a * b + b

    assert key(first) != key(second)
    assert key(first) == "float32;;float32|add(multiply(exp(i0:float32),sqrt(i0:float32)),#2)"


def test_keys_are_linear_in_the_graph():
    def doubled(x):
        for _ in range(5000):
            x = x + x
        return x

    assert len(key(doubled)) < 100_000


def test_constants_of_different_sign_or_dtype_differ():
    assert key(lambda x: x + 0.0) != key(lambda x: x + -0.0)
    assert key(lambda x: x * float("inf")) != key(lambda x: x * float("-inf"))
