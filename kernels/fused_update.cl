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
#define STATE(FIELD)
#define COLUMN_VALUES(VALUE) VALUE(lr, 2)
#define COUNTER_VALUES(VALUE) VALUE(step, 0)
#define RULE const real_vector next_p = p - h.lr * g;
#define COLUMNS 3
#define LOG_BETA1_COLUMN -1
#define LOG_BETA2_COLUMN -1
#endif

#include "step.clh"

// Tags of the dtypes of parameters and gradients.
#ifndef P
#define P float32
#endif
#ifndef G
#define G float32
#endif
#define KERNEL fused_update

#define DECLARE_VALUE(name, position) real name;
#define READ_COLUMN(name, position) c.name = hyper[position];
#define READ_COUNTER(name, position) c.name = counters[position];
#define FROM_ELEMENT(T, name) const real_vector name = x->name;
#define TO_ELEMENT(T, name) x->name = next_##name;

struct element {
    real_vector p, g;
    STATE(DECLARE)
};

struct coefficients {
    real prescale, gradient_factor;
    COLUMN_VALUES(DECLARE_VALUE)
    COUNTER_VALUES(DECLARE_VALUE)
};

static inline struct coefficients read_coefficients(const __global real *header, const __global real *hyper,
                                                    const __global real *counters) {
    struct coefficients c;
    c.prescale = prescale(header);
    c.gradient_factor = header[MULTIPLIER] * hyper[SIGN];
    COLUMN_VALUES(READ_COLUMN)
    COUNTER_VALUES(READ_COUNTER)
    return c;
}

static inline void update(const struct coefficients h, struct element *x) {
    const real_vector p = x->p, g = h.gradient_factor * (h.prescale * x->g);
    STATE(FROM_ELEMENT)
    RULE x->p = next_p;
    STATE(TO_ELEMENT)
}

#define WHOLE_VECTORS(EACH) EACH(update(c, &x))
#include "fused.clh"
