// prepare_step: decides a step on the device, in one work-group.
//
// From the records (scale, sum) of norm_reduce, all of one step, in a fixed order:
//   norm_scale = the largest scale; norm_root = (sum of sum_i * (scale_i / norm_scale)^p)^(1/p); norm = their product
//   nonfinite  = 1 if a gradient is NaN or infinite, else 0; the norm of finite ones may be infinite in this dtype
//   multiplier = min(1, max_norm / norm), formed as (max_norm / norm_scale) / norm_root, which cannot overflow;
//                1 for a zero norm or with nonfinite
//   shift      = a power of two that the gradients are divided by first where the multiplier would be no normal number
// With LOSS_SCALED the gradients carry the factor loss_scale[0]: norm and multiplier are divided by it, nonfinite is
// also set if loss_scale[1] is, and skip = nonfinite. Otherwise skip = 0. Without records the norm is left alone and
// the multiplier is 1. With rows it renews the bias corrections in `now` and writes the counters of the step after it
// to `next`. Bytes moved: 8 per record and about 50 per row, for float32. Launch: one work-group.

// A power of two; 1 on CPUs, where work-items that wait for each other cost more than they save.
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 64
#endif

// Nothing here is a vector.
#define WIDTH 1
#include "step.clh"

// The p of the norm if it is 1 or 2; 0 for another, which is then an argument; -1 for infinity.
#ifndef ORDER
#define ORDER 2
#endif
// Nonzero if the gradients carry a loss scale; there are records then.
#ifndef LOSS_SCALED
#define LOSS_SCALED 0
#endif
// Nonzero if there are records, and if the block has rows.
#ifndef RECORDS
#define RECORDS 1
#endif
#ifndef ROWS
#define ROWS 1
#endif
// Nonzero if REAL is float64.
#ifndef WIDE
#define WIDE 0
#endif

#if RECORDS
static inline real power(const real x, const real p) { return ORDER == 2 ? x * x : ORDER == 1 ? x : pow(x, p); }

static inline real root(const real x, const real p) { return ORDER == 2 ? sqrt(x) : ORDER == 1 ? x : pow(x, 1 / p); }

// The least normal number; a multiplier below it has lost digits, or is zero on devices without subnormal numbers.
#if WIDE
#define LEAST 0x1p-1022
#define TINY_SHIFT 960
#define LARGE_LIMIT 0x1p60
#else
#define LEAST 0x1p-126f
#define TINY_SHIFT 120
#define LARGE_LIMIT 128.0f
#endif

// large * max_norm / scale / root, in an order in which nothing over- or underflows on the way.
static inline real shifted_share(const real max_norm, const real scale, const real root, const real large) {
    return (max_norm > LARGE_LIMIT ? max_norm / scale * large : max_norm * large / scale) / root;
}

// Unlike fmax this keeps a NaN of either.
static inline real larger(const real a, const real b) { return a >= b || isnan(a) ? a : b; }

// scale = 0 stands for a zero norm; of the others the largest counts fully, which infinity / infinity would not say.
static inline real weighted(const real scale, const real sum, const real largest, const real p) {
    if (scale == largest || isnan(sum))
        return sum;
    return isinf(largest) ? 0 : sum * power(scale / largest, p);
}
#endif

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
prepare_step(__global real *restrict header, const ulong header_offset
#if RECORDS
             ,
             const real p, const real max_norm, const __global real *restrict partials, const ulong partials_offset,
             const ulong count
#endif
#if LOSS_SCALED
             ,
             const __global float *restrict loss_scale, const ulong loss_scale_offset
#endif
#if ROWS
             ,
             const __global real *restrict hyper, const ulong hyper_offset, __global real *restrict now,
             const ulong now_offset, __global real *restrict next, const ulong next_offset, const ulong row_count
#endif
) {
    const size_t lane = get_local_id(0);
    header += header_offset;
    bool skip = false;
#if RECORDS
    __local real lanes[WORK_GROUP_SIZE];
    partials += partials_offset;
    real scale = 0;
    for (size_t i = lane; i < count; i += WORK_GROUP_SIZE)
        scale = larger(scale, partials[2 * i]);
    TREE(lanes, scale, larger)
    // What each addition rounds away is carried to the next (W. Kahan, 1965): a CPU's one work-item adds all records.
    real sum = 0, lost = 0;
    for (size_t i = lane; i < count; i += WORK_GROUP_SIZE) {
        const real term = weighted(partials[2 * i], partials[2 * i + 1], scale, p) - lost;
        const real next_sum = sum + term;
        lost = next_sum - sum - term;
        sum = next_sum;
    }
    TREE(lanes, sum, ADD)
    const bool is_maximum = ORDER < 0;
    const real norm_root = isnan(sum) ? sum : scale == 0 || isinf(scale) || is_maximum ? 1 : root(sum, p);
    // The root of finite gradients may be infinite for a small p, and its sum is never.
    bool finite = isfinite(scale) && isfinite(sum);
    real factor = 1;
#if LOSS_SCALED
    factor = loss_scale[loss_scale_offset];
    finite = finite && loss_scale[loss_scale_offset + 1] == 0;
    skip = !finite;
#endif
    if (lane == 0) {
        const real norm_scale = scale / factor;
        const real share = max_norm / norm_scale;
        const bool clips = finite && norm_scale != 0 && share < norm_root;
        const real multiplier = (clips ? share / norm_root : 1) / factor;
        const bool is_tiny = multiplier < LEAST && !(clips && max_norm == 0);
        const real large = ldexp((real)1, TINY_SHIFT);
        header[NORM] = norm_scale * norm_root;
        header[NORM_SCALE] = norm_scale;
        header[NORM_ROOT] = norm_root;
        header[NONFINITE] = finite ? 0 : 1;
        header[MULTIPLIER] = !is_tiny ? multiplier
                             : clips  ? shifted_share(max_norm, norm_scale, norm_root, large) / factor
                                      : large / factor;
        header[SHIFT] = is_tiny ? TINY_SHIFT : 0;
    }
#else
    if (lane == 0) {
        header[MULTIPLIER] = 1;
        header[SHIFT] = 0;
    }
#endif
    if (lane == 0)
        header[SKIP] = skip;
#if ROWS
    hyper += hyper_offset;
    now += now_offset;
    for (size_t row = lane; row < row_count; row += WORK_GROUP_SIZE) {
        __global real *counters = now + row * COUNTER_COUNT;
        const __global real *hyper_row = hyper + row * COLUMNS;
        counters[BIAS_CORRECTION1] =
            bias_correction(hyper_row, LOG_BETA1_COLUMN, counters[STEP], counters[BIAS_CORRECTION1]);
        counters[BIAS_CORRECTION2] =
            bias_correction(hyper_row, LOG_BETA2_COLUMN, counters[STEP], counters[BIAS_CORRECTION2]);
    }
    // Each work-item advances the rows that it renewed itself, so nothing has to be waited for.
    advance_counters(lane, WORK_GROUP_SIZE, row_count, skip, hyper, now, next + next_offset);
#endif
}
