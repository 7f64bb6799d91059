// fused_update: one pass of an elementwise update rule over n elements of parameters, gradients and state.
//
// The rule is set in from Python, where it was traced; this file has the loads, stores, tail, skip and row map around
// it. Per element: (p, *state) <- rule(p, g * multiplier * sign, *state, hyper-parameters of the row, its counters).
// Bytes moved per element: sizes of p twice, g once, each state field twice. With float32 and one field: 20.
// Launch: see fused.clh.

#ifndef NETCL_GENERATED
// By default plain gradient descent. Of the generated part:
//   STATE(FIELD)            FIELD(tag of the dtype, name) for each state field
//   COLUMN_VALUES(VALUE)    VALUE(name, position in a hyper-parameter row) for what the rule reads of it
//   COUNTER_VALUES(VALUE)   the same of a counter row
//   RULE                    statements that compute next_p and next_<field> from p, g, the fields, and h.<name>
//   NUMBERED                1 if RULE reads `number`, the elements' numbers (int, modulo 2^32)
#define STATE(FIELD)
#define COLUMN_VALUES(VALUE) VALUE(lr, 2)
#define COUNTER_VALUES(VALUE) VALUE(step, 0)
#define RULE const real_vector next_p = p - h.lr * g;
#define NUMBERED 0
#define COLUMNS 3
#define LOG_BETA1_COLUMN -1
#define LOG_BETA2_COLUMN -1
#endif

#include "rule_update.clh"

#define KERNEL fused_update

#define WHOLE_VECTORS(EACH) EACH(update(&c, &x))
#include "fused.clh"
