// scan: out[k] <- elements 0 to k of expression(inputs) along one axis, joined by an operator, in a fixed order.
//
// A row of the axis is cut into parts of `chunk` elements. Every part but the first begins with what the parts before
// it come to, which a reduction and a scan of its results have found. Rows: the lanes lie along the axis; ITEMS
// work-items take one part, a vector each at a time: what a vector's lanes come to is joined in log2(WIDTH) steps, and
// what the vectors of a group come to through local memory. Columns: the lanes lie along another axis, and one
// work-item takes a part of WIDTH neighbouring rows. Parts, lanes and groups are fixed by shape and device, so the same
// input gives the same bits. Sums of floats are formed in two levels: within a vector or BLOCK elements plainly, and
// from one to the next with the rounding error of each addition kept (Knuth's two-sum, The Art of Computer Programming
// 2, 4.2.2), so that the error does not grow with the length. Bytes moved per element: the size of every input and of
// out, once. Launch: rows (or vectors of columns) times parts, by ITEMS, rounded up to whole work-groups.

#include "lanes.clh"

#pragma OPENCL FP_CONTRACT OFF

// 1 for columns, 0 for rows.
#ifndef COLUMNS
#define COLUMNS 0
#endif
// Work-items that share a row, a power of two; for columns and on CPU runtimes 1.
#ifndef ITEMS
#define ITEMS 1
#endif
// Elements of a column, or vectors of a row, that are added plainly.
#ifndef BLOCK
#define BLOCK 16
#endif
// 1 to keep the rounding errors of sums.
#ifndef COMPENSATED
#define COMPENSATED 1
#endif
// 1 to join one element after the other: a product of neighbours may leave the range that the running one stays in.
#ifndef ONE_BY_ONE
#define ONE_BY_ONE 0
#endif
// 1 if there are parts after the first.
#ifndef CONTINUED
#define CONTINUED 1
#endif
// Tag of the dtype of the accumulator, and of the result.
#ifndef SUM
#define SUM float32
#endif
#ifndef OUT
#define OUT float32
#endif
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 16
#endif

// What is generated, here for sums of x0 with one kept axis. The last input holds what earlier parts come to.
#ifndef NETCL_GENERATED
#define IDENTITY 0.0f
// Of a and b: vectors, and single values.
#define COMBINE_VECTORS return a + b;
#define COMBINE_VALUES return a + b;
#define LOADS FETCH(float32, v0, x0, x0_at + i)
#define STATEMENTS
#define VALUE v0
#define OPERANDS                                                                                                       \
    const __global float *x0, const ulong x0_offset, const __global float *x1, const ulong x1_offset,                  \
        const ulong x0_kept0, const ulong x1_kept0, const ulong r0_kept0, const ulong x1_part
// From the position `rest` along the kept axes (for columns, but that of the lanes) to where its elements begin.
#define KEPT_AXES                                                                                                      \
    const size_t u0 = rest;                                                                                            \
    const size_t x0_kept = x0_offset + u0 * x0_kept0;                                                                  \
    const size_t x1_kept = x1_offset + u0 * x1_kept0;                                                                  \
    const size_t r0_kept = r0_offset + u0 * r0_kept0;
#if COLUMNS
// With the number of columns.
#define PARAMETERS OPERANDS, const ulong x0_step, const ulong r0_step, const ulong lanes
// From the position k along the axis to where the lanes begin.
#define STEPS                                                                                                          \
    const size_t x0_at = x0_kept + k * x0_step;                                                                        \
    const size_t r0_at = r0_kept + k * r0_step;
#define BEFORE                                                                                                         \
    FETCH(float32, v1, x1, x1_kept + (part - 1) * x1_part + i)                                                         \
    total = v1;
#else
#define PARAMETERS OPERANDS
#define STEPS const size_t x0_at = x0_kept, r0_at = r0_kept;
#define BEFORE total = LOAD(float32, x1, x1_kept + (part - 1) * x1_part);
#endif
// To the results of lanes i to i + WIDTH - 1.
#define RESULTS(value) PUT(OUT, value, r0, r0_at + i)
#endif

typedef COMPUTED(SUM) Value;
typedef VECTOR(SUM) Vector;

static inline Vector combine_vectors(const Vector a, const Vector b) { COMBINE_VECTORS }
#if !COLUMNS && (ITEMS > 1 || ONE_BY_ONE || !COMPENSATED)
static inline Value combine_values(const Value a, const Value b){COMBINE_VALUES}
#endif

// total + lost <- total + lost + block, with nothing rounded away but below `lost`. T is the type of all three.
#if COMPENSATED
#define FOLD(T, total, lost, block)                                                                                    \
    {                                                                                                                  \
        const T sum = (total) + (block);                                                                               \
        const T part_of = sum - (total);                                                                               \
        const T left = (lost) + (((total) - (sum - part_of)) + ((block) - part_of));                                   \
        total = isfinite(left) ? sum + left : sum;                                                                     \
        lost = left - ((total) - sum);                                                                                 \
    }
// An infinite total has lost NaN, which is nothing.
#define KEPT(T, lost) (isfinite(lost) ? (lost) : (T)0)
#endif

#if COLUMNS
__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void scan(PARAMETERS, __global STORED(OUT) * r0,
                                                                                const ulong r0_offset, const ulong kept,
                                                                                const ulong extent, const ulong chunk,
                                                                                const ulong parts) {
    const size_t item = get_global_id(0);
    const size_t vectors = (lanes + WIDTH - 1) / WIDTH, row = item / vectors, part = row / kept;
    if (part >= parts)
        return;
    const size_t i = (item - row * vectors) * WIDTH;
    const bool whole = i + WIDTH <= lanes;
    const size_t count = min((size_t)WIDTH, (size_t)lanes - i);
    size_t rest = row - part * kept;
    KEPT_AXES
    const size_t from = part * chunk, to = min(from + (size_t)chunk, (size_t)extent);
    Vector total = (Vector)(IDENTITY);
#if CONTINUED
    if (part > 0) {
        BEFORE
    }
#endif
#if COMPENSATED
    Vector lost = (Vector)0;
    for (size_t k = from; k < to;) {
        const size_t stop = min(k + BLOCK, to);
        const Vector shift = KEPT(Vector, lost);
        Vector block = (Vector)0;
        for (; k < stop; ++k) {
            STEPS
            LOADS
            STATEMENTS
            block = combine_vectors(block, VALUE);
            const Vector result = total + (shift + block);
            RESULTS(STORAGE_PASTE(CONVERT, WIDTH)(OUT, result))
        }
        FOLD(Vector, total, lost, block)
    }
#else
    for (size_t k = from; k < to; ++k) {
        STEPS
        LOADS
        STATEMENTS
        total = combine_vectors(total, VALUE);
        RESULTS(STORAGE_PASTE(CONVERT, WIDTH)(OUT, total))
    }
#endif
}
#else
// Each lane joined with those before it.
static inline Vector running(Vector v) {
    const Value none = IDENTITY;
#if WIDTH == 8
    v = combine_vectors((Vector)(none, v.s0123, v.s45, v.s6), v);
    v = combine_vectors((Vector)(none, none, v.s0123, v.s45), v);
    v = combine_vectors((Vector)(none, none, none, none, v.s0123), v);
#elif WIDTH == 4
    v = combine_vectors((Vector)(none, v.s01, v.s2), v);
    v = combine_vectors((Vector)(none, none, v.s01), v);
#elif WIDTH == 2
    v = combine_vectors((Vector)(none, v.s0), v);
#else
    (void)none;
#endif
    return v;
}

#if WIDTH == 8
#define LAST(v) (v).s7
#elif WIDTH == 4
#define LAST(v) (v).s3
#elif WIDTH == 2
#define LAST(v) (v).s1
#else
#define LAST(v) (v)
#endif

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void scan(PARAMETERS, __global STORED(OUT) * r0,
                                                                                const ulong r0_offset, const ulong kept,
                                                                                const ulong extent, const ulong chunk,
                                                                                const ulong parts) {
#if ITEMS > 1
    __local Value totals[2 * ITEMS];
    const size_t item = get_group_id(0), own = get_local_id(0);
#else
    const size_t item = get_global_id(0);
#endif
    const size_t part = item / kept;
    if (part >= parts)
        return;
    size_t rest = item - part * kept;
    KEPT_AXES
    STEPS
    const size_t from = part * chunk, to = min(from + (size_t)chunk, (size_t)extent);
    Value total = IDENTITY;
#if CONTINUED
    if (part > 0) {
        BEFORE
    }
#endif
#if COMPENSATED
    Value lost = 0, inner = 0;
    size_t rounds = 0;
#endif
    for (size_t at = from; at < to; at += ITEMS * WIDTH) {
#if ITEMS > 1
        // Work-items beyond the end follow along at the barriers without storing.
        const size_t wanted = at + own * WIDTH, i = min(wanted, to - 1);
#else
        const size_t wanted = at, i = at;
#endif
        const bool whole = wanted + WIDTH <= to;
        const size_t count = min((size_t)WIDTH, to - i);
        LOADS
        STATEMENTS
#if ONE_BY_ONE
        Value values[WIDTH];
        TO_LANES(VALUE, values);
        for (size_t lane = 0; lane < WIDTH; ++lane) {
            total = combine_values(total, values[lane]);
            values[lane] = total;
        }
        const Vector result = FROM_LANES(values);
#else
        Vector joined = running(VALUE);
#if ITEMS > 1
        // Two halves of `totals` take turns.
        size_t half_of = 0;
        totals[own] = LAST(joined);
        for (size_t step = 1; step < ITEMS; step *= 2) {
            barrier(CLK_LOCAL_MEM_FENCE);
            Value mine = totals[half_of + own];
            if (own >= step)
                mine = combine_values(totals[half_of + own - step], mine);
            half_of = ITEMS - half_of;
            totals[half_of + own] = mine;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (own > 0)
            joined = combine_vectors((Vector)(totals[half_of + own - 1]), joined);
        const Value block = totals[half_of + ITEMS - 1];
        barrier(CLK_LOCAL_MEM_FENCE);
#else
        const Value block = LAST(joined);
#endif
#if COMPENSATED
        const Vector result = total + (KEPT(Value, lost) + (inner + joined));
        inner += block;
        if (++rounds == BLOCK) {
            FOLD(Value, total, lost, inner)
            inner = 0;
            rounds = 0;
        }
#else
        const Vector result = combine_vectors((Vector)(total), joined);
        total = combine_values(total, block);
#endif
#endif
        if (wanted < to) {
            RESULTS(STORAGE_PASTE(CONVERT, WIDTH)(OUT, result))
        }
    }
}
#endif
