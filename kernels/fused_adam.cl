// fused_adam: one pass of Adam in any variant over n elements of parameters, gradients and moments.
//
// Per element, with g scaled by multiplier * sign:
//   g <- g + l2 * p
//   m <- beta1 * m + (1 - beta1) * g
//   v <- beta2 * v + (1 - beta2) * g^2            with LARGEST, in rows of AMSGrad, the largest v so far takes the
//                                                 place of v below; other rows keep what they have of it
//   p <- p - lr * ((m / correction1) / (sqrt(v / correction2) + eps) + decay * p)
// Chunks of inactive rows keep every byte, and so does everything when the header's skip is set.
// The two divisions by corrections are folded into lr and the root, which leaves one division and one root per element.
// Bytes moved per float32 element: 28, with LARGEST 36.
// Launch: ceil(n / (WIDTH * RUN)) work-items in whole work-groups, with ADVANCE one work-group more.
// Source: D. P. Kingma and J. Ba, "Adam", 2014; I. Loshchilov and F. Hutter, "Decoupled Weight Decay", 2017;
// S. J. Reddi, S. Kale and S. Kumar, "On the Convergence of Adam and Beyond", 2018 (AMSGRAD).

#include "step.clh"

// Tags of the dtypes of parameters, gradients, and first, second and largest second moments.
#ifndef P
#define P float32
#endif
#ifndef G
#define G float32
#endif
#ifndef M
#define M float32
#endif
#ifndef V
#define V float32
#endif
#ifndef V_MAX
#define V_MAX float32
#endif
// Nonzero to keep the largest second moment.
#ifndef LARGEST
#define LARGEST 0
#endif

#if LARGEST
#define STATE(FIELD) FIELD(M, m) FIELD(V, v) FIELD(V_MAX, v_max)
#else
#define STATE(FIELD) FIELD(M, m) FIELD(V, v)
#endif
#define KERNEL fused_adam

struct element {
    real_vector p, g;
    STATE(DECLARE)
};

struct coefficients {
    real prescale, gradient_factor, step_size, decay, l2, beta1, one_minus_beta1, beta2, one_minus_beta2, root_factor,
        eps, amsgrad;
};

static inline struct coefficients read_coefficients(const __global real *header, const __global real *hyper,
                                                    const __global real *counters) {
    struct coefficients c;
    c.prescale = prescale(header);
    c.gradient_factor = header[MULTIPLIER] * hyper[SIGN];
    c.step_size = hyper[LR] / counters[BIAS_CORRECTION1];
    c.decay = hyper[LR] * hyper[DECAY];
    c.l2 = hyper[L2];
    c.beta1 = hyper[BETA1];
    c.one_minus_beta1 = hyper[ONE_MINUS_BETA1];
    c.beta2 = hyper[BETA2];
    c.one_minus_beta2 = hyper[ONE_MINUS_BETA2];
    c.root_factor = 1 / sqrt(counters[BIAS_CORRECTION2]);
    c.eps = hyper[EPS];
    c.amsgrad = hyper[AMSGRAD];
    return c;
}

// Without a penalty or a decay the term is left out: 0 * infinity would be NaN.
INLINE void update_with(const struct coefficients *coefficients, struct element *x, const bool penalty,
                        const bool decay) {
    const struct coefficients c = *coefficients;
    const real_vector p = x->p;
    const real_vector scaled = c.gradient_factor * (c.prescale * x->g);
    const real_vector g = penalty ? scaled + c.l2 * p : scaled;
    x->m = c.beta1 * x->m + c.one_minus_beta1 * g;
    x->v = c.beta2 * x->v + c.one_minus_beta2 * (g * g);
    real_vector second = x->v;
#if LARGEST
    if (c.amsgrad != 0) // unlike fmax this keeps a NaN of v
        x->v_max = second = x->v_max > x->v ? x->v_max : x->v;
#endif
    const real_vector moved = c.step_size * x->m / (sqrt(second) * c.root_factor + c.eps);
    x->p = p - (decay ? moved + c.decay * p : moved);
}

INLINE void update(const struct coefficients *c, struct element *x) { update_with(c, x, c->l2 != 0, c->decay != 0); }

// Decided once for all vectors: within the loop it would cost a tenth of the time.
#define WHOLE_VECTORS(EACH)                                                                                            \
    if (c.l2 != 0) {                                                                                                   \
        EACH(update_with(&c, &x, true, c.decay != 0))                                                                  \
    } else if (c.decay != 0) {                                                                                         \
        EACH(update_with(&c, &x, false, true))                                                                         \
    } else {                                                                                                           \
        EACH(update_with(&c, &x, false, false))                                                                        \
    }

#include "fused.clh"
