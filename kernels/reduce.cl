// reduce: out <- combine over some axes of expression(inputs), in a fixed order.
//
// The axes that remain number the units, the others are walked. A work-item walks one part of one unit (rows: the lanes
// lie along the innermost axis walked) or of STRIP * WIDTH neighbouring units (columns: the lanes lie along an axis
// that remains). With several parts, each leaves a result of its own, which a second launch reduces. Parts, lanes,
// blocks and the tree that joins lanes are fixed by shape and device, so the same input gives the same bits. Sums of
// floats: BLOCK terms are added plainly, then the rounding error of each further addition is kept and added at the end
// (Knuth's two-sum, The Art of Computer Programming 2, 4.2.2), so that the error does not grow with the length. Bytes
// moved per element: the size of every input, once. Launch: units (strips of units) times parts, rounded up to whole
// work-groups.

#include "lanes.clh"

#pragma OPENCL FP_CONTRACT OFF

// 1 for columns, 0 for rows.
#ifndef COLUMNS
#define COLUMNS 0
#endif
// Vectors side by side, a power of two: columns of one work-item, or independent accumulators of a row. Their loops are
// unrolled, or the accumulators would live in memory.
#ifndef STRIP
#define STRIP 4
#endif
// Terms that are added plainly in each lane.
#ifndef BLOCK
#define BLOCK 16
#endif
// 1 to keep the rounding errors of sums of blocks.
#ifndef COMPENSATED
#define COMPENSATED 1
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

// What is generated, here for a sum of x0 * x1 with one axis of units and one outer axis walked.
#ifndef NETCL_GENERATED
#define IDENTITY 0.0f
// Of a and b: vectors, and single values.
#define COMBINE_VECTORS return a + b;
#define COMBINE_VALUES return a + b;
#define LOADS                                                                                                          \
    FETCH(float32, v0, x0, x0_at + i)                                                                                  \
    FETCH(float32, v1, x1, x1_at + i)
#define STATEMENTS const float8 t0 = v0 * v1;
#define VALUE t0
#define OPERANDS                                                                                                       \
    const __global float *x0, const ulong x0_offset, const __global float *x1, const ulong x1_offset,                  \
        const ulong x0_unit0, const ulong x1_unit0, const ulong r0_unit0, const ulong x0_walk0, const ulong x1_walk0
// From the number `rest` of a unit (of a row of strips) to where its elements begin.
#define UNITS                                                                                                          \
    const size_t u0 = rest;                                                                                            \
    const size_t x0_unit = x0_offset + u0 * x0_unit0;                                                                  \
    const size_t x1_unit = x1_offset + u0 * x1_unit0;                                                                  \
    const size_t r0_unit = r0_offset + u0 * r0_unit0;
// From the position `rest` along the outer axes that are walked to where the innermost one begins.
#define WALKS                                                                                                          \
    const size_t w0 = rest;                                                                                            \
    const size_t x0_walk = x0_unit + w0 * x0_walk0;                                                                    \
    const size_t x1_walk = x1_unit + w0 * x1_walk0;
#if COLUMNS
// With the number of columns in a row of strips.
#define PARAMETERS OPERANDS, const ulong x0_step, const ulong x1_step, const ulong lanes
// From the position k along the innermost axis that is walked to where the lanes begin.
#define STEPS                                                                                                          \
    const size_t x0_at = x0_walk + k * x0_step;                                                                        \
    const size_t x1_at = x1_walk + k * x1_step;
// To the results of columns i to i + WIDTH - 1.
#define RESULTS(value, i) PUT(OUT, value, r0, r0_unit + part * r0_part + i)
#else
#define PARAMETERS OPERANDS
#define STEPS                                                                                                          \
    const size_t x0_at = x0_walk;                                                                                      \
    const size_t x1_at = x1_walk;
#endif
#endif

static inline VECTOR(SUM) combine_vectors(const VECTOR(SUM) a, const VECTOR(SUM) b) { COMBINE_VECTORS }
static inline COMPUTED(SUM) combine_values(const COMPUTED(SUM) a, const COMPUTED(SUM) b){COMBINE_VALUES}

// total <- total + block, with what that rounds away added to `lost`.
#if COMPENSATED
#define FOLD(total, lost, block)                                                                                       \
    {                                                                                                                  \
        const VECTOR(SUM) sum = (total) + (block);                                                                     \
        const VECTOR(SUM) part = sum - (total);                                                                        \
        lost += ((total) - (sum - part)) + ((block) - part);                                                           \
        total = sum;                                                                                                   \
    }
// An infinite total has lost NaN, which is nothing.
#define CLOSE(total, lost) total = isfinite(lost) ? (total) + (lost) : total
#else
#define FOLD(total, lost, block) total = combine_vectors(total, block);
#define CLOSE(total, lost) (void)(lost)
#endif

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void reduce(
    PARAMETERS, __global STORED(OUT) * r0, const ulong r0_offset, const ulong r0_part, const ulong units,
    const ulong outer, const ulong inner, const ulong outer_chunk, const ulong inner_chunk, const ulong inner_parts,
    const ulong parts) {
    const size_t item = get_global_id(0);
    const VECTOR(SUM) identity = (VECTOR(SUM))(IDENTITY);
#if COLUMNS
    const size_t strips = (lanes + STRIP * WIDTH - 1) / (STRIP * WIDTH);
    const size_t row = item / strips;
    const size_t part = row / units;
    if (part >= parts)
        return;
    const size_t first = (item - row * strips) * (STRIP * WIDTH);
    size_t rest = row - part * units;
#else
    size_t rest = item / parts;
    if (rest >= units)
        return;
    const size_t part = item - rest * parts;
#endif
    UNITS
    // The part: a range of the outer axes walked, and of the innermost one.
    const size_t outer_part = part / inner_parts;
    const size_t outer_from = outer_part * outer_chunk;
    const size_t outer_to = min(outer_from + outer_chunk, (size_t)outer);
    const size_t inner_from = (part - outer_part * inner_parts) * inner_chunk;
    const size_t inner_to = min(inner_from + inner_chunk, (size_t)inner);

#if COLUMNS
    if (first + STRIP * WIDTH <= lanes) {
        const bool whole = true;
        const size_t count = WIDTH;
        VECTOR(SUM) total[STRIP], lost[STRIP];
#pragma unroll
        for (size_t s = 0; s < STRIP; ++s) {
            total[s] = identity;
            lost[s] = (VECTOR(SUM))0;
        }
        for (size_t w = outer_from; w < outer_to; ++w) {
            rest = w;
            WALKS
            for (size_t k = inner_from; k < inner_to;) {
                const size_t stop = min(k + BLOCK, inner_to);
                VECTOR(SUM) block[STRIP];
#pragma unroll
                for (size_t s = 0; s < STRIP; ++s)
                    block[s] = identity;
                for (; k < stop; ++k) {
                    STEPS
#pragma unroll
                    for (size_t s = 0; s < STRIP; ++s) {
                        const size_t i = first + s * WIDTH;
                        LOADS
                        STATEMENTS
                        block[s] = combine_vectors(block[s], VALUE);
                    }
                }
#pragma unroll
                for (size_t s = 0; s < STRIP; ++s)
                    FOLD(total[s], lost[s], block[s])
            }
        }
#pragma unroll
        for (size_t s = 0; s < STRIP; ++s) {
            CLOSE(total[s], lost[s]);
            RESULTS(STORAGE_PASTE(CONVERT, WIDTH)(OUT, total[s]), first + s * WIDTH)
        }
        return;
    }
    // The last strip, vector by vector.
    for (size_t i = first; i < lanes; i += WIDTH) {
        const bool whole = i + WIDTH <= lanes;
        const size_t count = min((size_t)WIDTH, (size_t)(lanes - i));
        VECTOR(SUM) total = identity, lost = (VECTOR(SUM))0;
        for (size_t w = outer_from; w < outer_to; ++w) {
            rest = w;
            WALKS
            for (size_t k = inner_from; k < inner_to;) {
                const size_t stop = min(k + BLOCK, inner_to);
                VECTOR(SUM) block = identity;
                for (; k < stop; ++k) {
                    STEPS
                    LOADS
                    STATEMENTS
                    block = combine_vectors(block, VALUE);
                }
                FOLD(total, lost, block)
            }
        }
        CLOSE(total, lost);
        RESULTS(STORAGE_PASTE(CONVERT, WIDTH)(OUT, total), i)
    }
#else
    VECTOR(SUM) total = identity, lost = (VECTOR(SUM))0;
    for (size_t w = outer_from; w < outer_to; ++w) {
        rest = w;
        WALKS
        STEPS
        size_t at = inner_from;
        while (at + STRIP * WIDTH <= inner_to) {
            const bool whole = true;
            const size_t count = WIDTH;
            const size_t rounds = min((size_t)BLOCK, (inner_to - at) / (STRIP * WIDTH));
            VECTOR(SUM) block[STRIP];
#pragma unroll
            for (size_t s = 0; s < STRIP; ++s)
                block[s] = identity;
            for (size_t round = 0; round < rounds; ++round) {
#pragma unroll
                for (size_t s = 0; s < STRIP; ++s) {
                    const size_t i = at + s * WIDTH;
                    LOADS
                    STATEMENTS
                    block[s] = combine_vectors(block[s], VALUE);
                }
                at += STRIP * WIDTH;
            }
            for (size_t join = STRIP / 2; join > 0; join /= 2)
                for (size_t s = 0; s < join; ++s)
                    block[s] = combine_vectors(block[s], block[s + join]);
            FOLD(total, lost, block[0])
        }
        VECTOR(SUM) block = identity;
        for (size_t i = at; i < inner_to; i += WIDTH) {
            const bool whole = i + WIDTH <= inner_to;
            const size_t count = min((size_t)WIDTH, inner_to - i);
            LOADS
            STATEMENTS
            VECTOR(SUM) value = VALUE;
            if (!whole) {
                COMPUTED(SUM) values[WIDTH];
                TO_LANES(value, values);
                for (size_t lane = count; lane < WIDTH; ++lane)
                    values[lane] = IDENTITY;
                value = FROM_LANES(values);
            }
            block = combine_vectors(block, value);
        }
        FOLD(total, lost, block)
    }
    CLOSE(total, lost);
    COMPUTED(SUM) values[WIDTH];
    TO_LANES(total, values);
    for (size_t join = WIDTH / 2; join > 0; join /= 2)
        for (size_t lane = 0; lane < join; ++lane)
            values[lane] = combine_values(values[lane], values[lane + join]);
    STORE(OUT, CONVERT(OUT, values[0]), r0, r0_unit + part * r0_part);
#endif
}
