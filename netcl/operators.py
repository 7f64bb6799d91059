"""The operators that expressions are made of: what each takes, and of what dtype its result is."""

from types import MappingProxyType

# How the result dtype of an operator follows from its operands: "same" as the promoted operands, "real" (the real
# counterpart of a complex operand), "complex" (its complex counterpart), "float" (only floating operands are legal),
# "integer", "bool" (a comparison), "random" (float32, of a float32 and an int32 of random bits).
OPERATORS: MappingProxyType[str, tuple[int, str]] = MappingProxyType(
    {
        "add": (2, "same"), "subtract": (2, "same"), "multiply": (2, "same"), "divide": (2, "float"),
        "floor_divide": (2, "same"), "remainder": (2, "same"), "pow": (2, "same"), "atan2": (2, "float"),
        "maximum": (2, "same"), "minimum": (2, "same"), "hypot": (2, "float"), "copysign": (2, "float"),
        "nextafter": (2, "float"), "logaddexp": (2, "float"),
        "negative": (1, "same"), "positive": (1, "same"), "abs": (1, "real"), "sign": (1, "same"),
        "square": (1, "same"), "sqrt": (1, "float"), "rsqrt": (1, "float"), "reciprocal": (1, "float"),
        "exp": (1, "float"), "expm1": (1, "float"), "log": (1, "float"), "log1p": (1, "float"), "log2": (1, "float"),
        "log10": (1, "float"), "sin": (1, "float"), "cos": (1, "float"), "tan": (1, "float"), "asin": (1, "float"),
        "acos": (1, "float"), "atan": (1, "float"), "sinh": (1, "float"), "cosh": (1, "float"), "tanh": (1, "float"),
        "asinh": (1, "float"), "acosh": (1, "float"), "atanh": (1, "float"), "erf": (1, "float"),
        "floor": (1, "same"), "ceil": (1, "same"), "trunc": (1, "same"), "round": (1, "same"),
        "equal": (2, "bool"), "not_equal": (2, "bool"), "less": (2, "bool"), "less_equal": (2, "bool"),
        "greater": (2, "bool"), "greater_equal": (2, "bool"),
        "isnan": (1, "bool"), "isinf": (1, "bool"), "isfinite": (1, "bool"), "signbit": (1, "bool"),
        "logical_and": (2, "bool"), "logical_or": (2, "bool"), "logical_xor": (2, "bool"), "logical_not": (1, "bool"),
        "bitwise_and": (2, "same"), "bitwise_or": (2, "same"), "bitwise_xor": (2, "same"),
        "bitwise_invert": (1, "same"), "bitwise_left_shift": (2, "same"), "bitwise_right_shift": (2, "same"),
        "where": (3, "where"), "cast": (1, "cast"), "narrow": (1, "cast"),
        "round_float16": (1, "float"), "round_bfloat16": (1, "float"),
        "stochastic_float16": (2, "random"), "stochastic_bfloat16": (2, "random"),
        "real": (1, "real"), "imag": (1, "real"), "conj": (1, "same"), "complex": (2, "complex"),
    }
)  # fmt: skip
"""Every operator a backend implements, with its arity and how its result dtype follows."""

LEAVES = ("input", "scalar", "constant", "hyper")
"""What is no operator: an operand, a number given at the call or written down, or a hyper-parameter."""
