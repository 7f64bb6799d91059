// norm_reduce: partial results of a p-norm of n elements, one record (scale, sum) for each piece of PIECE elements.
//
// sum = sum of (|x| / scale)^p over the piece, with x first multiplied by the multiplier:
//   p = 1 and 2     scale is a power of two near max |x|, so the division is exact and nothing over- or underflows
//   any other p     scale is max |x|
//   infinity        scale is max |x|, sum is 0
// All zeros give (0, 0), an infinity (infinity, 1), a NaN (NaN, NaN). Chunks of inactive rows count as zeros.
// A piece is small enough to stay in a cache: a second look, once the maximum is known, is taken there, and for p = 1
// and 2 only if the plain sum could have lost something.
// Every sum has a fixed order and there are no atomics, so the same input gives the same bits.
// Bytes moved per element: its size.
// Launch: LANES work-items in one work-group per piece. On a CPU that is one, which streams; on a GPU they take turns.

// Elements per piece, a multiple of CHUNK.
#ifndef PIECE
#define PIECE 16384
#endif
// Work-items per piece, a power of two.
#ifndef LANES
#define LANES 1
#endif
#define WORK_GROUP_SIZE LANES

#include "norm.clh"

// Tag of the dtype of x. The records have REAL's.
#ifndef X
#define X float32
#endif
// The p of the norm if it is 1 or 2; 0 for another, which is then an argument; -1 for infinity.
#ifndef ORDER
#define ORDER 2
#endif
// Nonzero if REAL is wider than what x is computed in.
#ifndef WIDEN
#define WIDEN 0
#endif
// Nonzero if the multiplier lies in a buffer.
#ifndef MULTIPLIED
#define MULTIPLIED 0
#endif
// Nonzero if there is a row map.
#ifndef MAPPED
#define MAPPED 0
#endif
#if !WIDEN
#define LOAD_REALS(x, i) LOAD_VECTOR(X, x, i)
#elif WIDTH == 1
#define LOAD_REALS(x, i) CONVERT(REAL, LOAD(X, x, i))
#else
#define LOAD_REALS(x, i) STORAGE_PASTE(CONVERT, WIDTH)(REAL, LOAD_VECTOR(X, x, i))
#endif

struct totals {
    bits_vector largest;
    real_vector sum;
};

struct weights {
    real multiplier, factor, divisor, p;
};

static inline real_vector term(const real_vector x, const struct weights w) {
#if ORDER == 2
    return (w.factor * x) * (w.factor * x);
#elif ORDER == 1
    return w.factor * fabs(x);
#else
    return pow(w.factor * fabs(x) / w.divisor, (real_vector)(w.p));
#endif
}

static inline void add(struct totals *t, const real_vector x, const struct weights w, const bool powers) {
    const real_vector scaled = MULTIPLIED ? w.multiplier * x : x;
    t->largest = max(t->largest, AS_BITS(fabs(scaled)));
    if (powers)
        t->sum += term(scaled, w);
}

static inline bool is_active(const size_t chunk, const __global real *hyper, const __global ushort *rows) {
    return !MAPPED || hyper[(size_t)rows[chunk] * COLUMNS + ACTIVE] != 0;
}

// This work-item's share of elements first to end - 1; `powers` says whether the sum is wanted besides the maximum.
static inline struct totals look(const __global STORED(X) * x, const size_t first, const size_t end,
                                 const __global real *hyper, const __global ushort *rows, const struct weights w,
                                 const bool powers) {
    const size_t step = (size_t)LANES * WIDTH;
    struct totals all = {(bits_vector)(0), (real_vector)(0)};
    for (size_t chunk = first; chunk < end; chunk += CHUNK) {
        if (!is_active(chunk / CHUNK, hyper, rows))
            continue;
        const size_t stop = min(end, chunk + CHUNK);
        // Four chains hide the latency of an addition; a sum for each chunk keeps the rounding error small.
        struct totals t0 = {(bits_vector)(0), (real_vector)(0)}, t1 = t0, t2 = t0, t3 = t0;
        size_t i = chunk + get_local_id(0) * WIDTH;
        for (; i + 3 * step + WIDTH <= stop; i += 4 * step) {
            add(&t0, LOAD_REALS(x, i), w, powers);
            add(&t1, LOAD_REALS(x, i + step), w, powers);
            add(&t2, LOAD_REALS(x, i + 2 * step), w, powers);
            add(&t3, LOAD_REALS(x, i + 3 * step), w, powers);
        }
        for (; i + WIDTH <= stop; i += step)
            add(&t0, LOAD_REALS(x, i), w, powers);
        for (; WIDTH > 1 && i < stop; ++i) {
            real_vector one = 0;
            FIRST_LANE(one) = CONVERT(REAL, LOAD(X, x, i));
            add(&t1, one, w, powers);
        }
        all.largest = max(all.largest, max(max(t0.largest, t1.largest), max(t2.largest, t3.largest)));
        all.sum += (t0.sum + t1.sum) + (t2.sum + t3.sum);
    }
    return all;
}

__kernel __attribute__((reqd_work_group_size(LANES, 1, 1))) void
norm_reduce(const __global STORED(X) *restrict x, const ulong x_offset, const ulong n, __global real *restrict partials,
            const ulong partials_offset, const real p
#if MULTIPLIED
            ,
            const __global real *restrict multiplier, const ulong multiplier_offset
#endif
#if MAPPED
            ,
            const __global real *restrict hyper, const ulong hyper_offset, const __global ushort *restrict rows,
            const ulong rows_offset
#endif
) {
#if WORK_GROUP_SIZE > 1
    __local bits lane_largest[LANES];
    __local real lane_sum[LANES];
#endif
#if MAPPED
    hyper += hyper_offset;
    rows += rows_offset;
#else
    const __global real *hyper = 0;
    const __global ushort *rows = 0;
#endif
    x += x_offset;
    const size_t first = get_group_id(0) * (size_t)PIECE;
    const size_t end = min((size_t)n, first + PIECE);
    struct weights w = {1, 1, 1, p};
#if MULTIPLIED
    w.multiplier = multiplier[multiplier_offset];
#endif
    const bool is_maximum = ORDER < 0, is_exact = ORDER > 0;
    const struct totals t = look(x, first, end, hyper, rows, w, is_exact);
    bits largest = ACROSS(max, t.largest);
    real sum = ACROSS(ADD, t.sum);
    TREE(lane_largest, largest, max)
    TREE(lane_sum, sum, ADD)

    real scale = AS_REAL(largest);
    const int exponent = exponent_of(largest);
    if (largest >= INFINITE_BITS) {
        sum = largest > INFINITE_BITS ? scale : 1;
    } else if (largest == 0 || is_maximum) {
        sum = 0;
    } else {
        w.factor = POWER_OF_TWO(-exponent);
        w.divisor = w.factor * scale;
        if (is_exact)
            scale = POWER_OF_TWO(exponent);
        if (is_exact && is_safe(exponent)) {
            sum *= ORDER == 2 ? w.factor * w.factor : w.factor;
        } else {
            const struct totals second = look(x, first, end, hyper, rows, w, true);
            sum = ACROSS(ADD, second.sum);
            TREE(lane_sum, sum, ADD)
        }
    }
    if (get_local_id(0) == 0) {
        partials[partials_offset + 2 * get_group_id(0)] = scale;
        partials[partials_offset + 2 * get_group_id(0) + 1] = sum;
    }
}
