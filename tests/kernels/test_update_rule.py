"""Traced rules as text: divisions that are made once for a chunk."""

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.opencl.codegen.update_rule import with_reciprocals
from tests.kernels.steps import adam_rule, hyper


def divisions(rule):
    return [node for node in rule.nodes() if node.op == "divide"]


def test_a_rule_divides_by_a_hyper_parameter_once_for_a_chunk():
    rule = adam_rule()
    rewritten = with_reciprocals(rule)
    assert len(divisions(rule)) == 3
    by_element = [node for node in divisions(rewritten) if node.args[0].op != "constant"]
    assert len(by_element) == 1, "only the division by the root is one per element"
    assert (rewritten.inputs, rewritten.stored) == (rule.inputs, rule.stored)


def test_a_rule_of_many_operations_is_rewritten():
    def long(p, g):
        for _ in range(3000):
            p = p - g / hyper("lr")
        return p

    rule = ex.trace(long, (dtypes.float32,) * 2, stored=(dtypes.float32,))
    assert all(node.args[0].op == "constant" for node in divisions(with_reciprocals(rule)))
