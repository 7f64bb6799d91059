// tensor_update: the second of two passes of a rule with values of whole tensors. It makes the ratio of each tensor
// from the records of tensor_direction, and updates every element along its direction.
//
// The rule is set in from Python. Per tensor: ratio <- rule(norms, number of elements, hyper-parameters of the row, its
// counters); per element: (p, *fields) <- rule(p, direction, *fields, ratio, ...). Fields that stay as they are are not
// written, those that are not needed not read. Every work-group adds the records of its tensors up itself, in a fixed
// order; the blocks are so large that a tensor has few of them.
// If the header's skip is set no byte changes, nor ever in the chunks of inactive rows.
// Bytes moved per element: sizes of what is read and written; for LAMB in float32, 12.
// Launch: one work-group for each block.

#ifndef NETCL_GENERATED
// By default a decay, and a step of length lr * |p|. Of the generated part, beside what tensors.clh wants:
//   RATIO                   statements that compute `ratio` from n0, ..., size and h.<name>
//   RULE                    statements that compute next_<field> for WRITTEN from p, the fields, ratio and h.<name>
#define STATE(FIELD) FIELD(float32, s0)
#define READ(FIELD) FIELD(P, p) FIELD(float32, s0)
#define WRITTEN(FIELD) FIELD(P, p)
#define NORMS(NORM) NORM(0, n0) NORM(1, n1)
#define COLUMN_VALUES(VALUE) VALUE(lr, 2) VALUE(decay, 3)
#define COUNTER_VALUES(VALUE) VALUE(step, 0)
#define RATIO const real ratio = n1 > 0 ? h.lr * n0 / n1 : size;
#define RULE const real_vector next_p = p - h.decay * p - ratio * s0;
#define COLUMNS 4
#define LOG_BETA1_COLUMN -1
#define LOG_BETA2_COLUMN -1
#endif

#include "tensors.clh"

// Up to so many records each work-item adds up alone, which is faster than to wait for the others.
#define FEW 16

#define NORM_PARAMETER(number, name) , const real name
#define NORM_ARGUMENT(number, name) , name

static inline real tensor_ratio(const struct coefficients h, const real size NORMS(NORM_PARAMETER)) {
    RATIO return ratio;
}

INLINE void update(const struct coefficients *c, const real ratio, struct element *x) {
    const struct coefficients h = *c;
    READ(FROM_ELEMENT) RULE WRITTEN(TO_ELEMENT)
}

// What a work-item has found of a norm: scale * sqrt(sum), with 0, infinity or NaN for a scale as they are.
struct record {
    real scale, sum;
};

static inline bool is_usual(const real scale) { return scale > 0 && isfinite(scale); }

static inline real square_of_share(const real scale, const real largest) {
    const real share = is_usual(largest) ? scale / largest : 0;
    return share * share;
}

static inline struct record joined(const struct record a, const struct record b) {
    struct record both;
    both.scale = AS_REAL(max(AS_ONE_BITS(a.scale), AS_ONE_BITS(b.scale)));
    both.sum = square_of_share(a.scale, both.scale) * a.sum + square_of_share(b.scale, both.scale) * b.sum;
    return both;
}

// Of the records begin, begin + WIDTH, ... in steps, as vectors, and of those at the end that fill none.
static inline struct record collect(const __global real *scales, const __global real *sums, const size_t count,
                                    const size_t begin, const size_t step) {
    bits_vector largest = 0;
    size_t i = begin;
    for (; i + WIDTH <= count; i += step)
        largest = max(largest, AS_BITS(LOAD_VECTOR(REAL, scales, i)));
    struct record all;
    all.scale = AS_REAL(ACROSS(max, largest));
    // Scales are powers of two, so this is exact.
    const real inverse = is_usual(all.scale) ? 1 / all.scale : 0;
    real_vector sum = 0;
    for (i = begin; i + WIDTH <= count; i += step) {
        const real_vector share = inverse * LOAD_VECTOR(REAL, scales, i);
        sum += share * share * LOAD_VECTOR(REAL, sums, i);
    }
    all.sum = ACROSS(ADD, sum);
    for (i = count - count % WIDTH + begin / WIDTH; WIDTH > 1 && i < count; i += step / WIDTH) {
        const struct record one = {scales[i], sums[i]};
        all = joined(all, one);
    }
    return all;
}

#define COLLECT(number, name)                                                                                          \
    struct record found_##name = collect(records + 2 * number * pieces + piece,                                        \
                                         records + (2 * number + 1) * pieces + piece, count, begin, step);
#define NORM_OF(number, name)                                                                                          \
    const real name = is_usual(found_##name.scale) ? found_##name.scale * sqrt(found_##name.sum) : found_##name.scale;

// Combines what the work-items of a group have found of every norm, in a fixed order; each gets the result. Where they
// do not share the records all have the same.
#if LANES > 1 && NORM_COUNT > 0
#define PUT(number, name) lane_found[number][lane] = found_##name;
#define MEET(number, name)                                                                                             \
    lane_found[number][lane] = joined(lane_found[number][lane], lane_found[number][lane + width]);
#define GET(number, name) found_##name = lane_found[number][0];
#define ACROSS_LANES                                                                                                   \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                                      \
    NORMS(PUT)                                                                                                         \
    for (size_t width = is_shared ? LANES / 2 : 0; width > 0; width /= 2) {                                            \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        if (lane < width) {                                                                                            \
            NORMS(MEET)                                                                                                \
        }                                                                                                              \
    }                                                                                                                  \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                                      \
    NORMS(GET)
#else
#define ACROSS_LANES
#endif

__kernel __attribute__((reqd_work_group_size(LANES, 1, 1))) void
tensor_update(const __global real *restrict header, const ulong header_offset, const __global real *restrict hyper,
              const ulong hyper_offset, const __global real *restrict now, const ulong now_offset,
              const __global ushort *restrict rows, const ulong rows_offset, const __global long *restrict first,
              const ulong first_offset, const __global ushort *restrict of_chunk, const ulong of_chunk_offset,
              const __global real *restrict sizes, const ulong sizes_offset, const __global real *restrict records,
              const ulong records_offset, const ulong pieces, const ulong per_block, const ulong first_chunk,
              const ulong n, __global STORED(P) *restrict p, const ulong p_offset STATE(PARAMETER)) {
#if LANES > 1 && NORM_COUNT > 0
    __local struct record lane_found[NORM_COUNT][LANES];
#endif
    const size_t lane = get_local_id(0);
    header += header_offset;
    if (header[SKIP] != 0)
        return;
    hyper += hyper_offset;
    now += now_offset;
    rows += rows_offset;
    first += first_offset;
    of_chunk += of_chunk_offset;
    sizes += sizes_offset;
    records += records_offset;
    MOVE(P, p)
    STATE(MOVE)
    const size_t block = first_chunk / per_block + get_group_id(0);
    const size_t last = min((size_t)((block + 1) * per_block), (size_t)(first_chunk + (n + CHUNK - 1) / CHUNK));
    for (size_t chunk = max((size_t)(block * per_block), (size_t)first_chunk); chunk < last;) {
        const size_t tensor = of_chunk[chunk];
        const size_t row = rows[chunk - first_chunk];
        const size_t start = (chunk - first_chunk) * CHUNK;
        const size_t own_first = first[tensor], own_last = first[tensor + 1];
        chunk = min(last, own_last);
        const size_t stop = min((size_t)n, (size_t)((chunk - first_chunk) * CHUNK));
        const struct coefficients c = read_coefficients(header, hyper + row * COLUMNS, now + row * COUNTER_COUNT);
#if NORM_COUNT > 0
        const size_t piece = own_first / per_block + tensor;
        const size_t count = (own_last - 1) / per_block + tensor + 1 - piece;
        // No barrier stands in a branch, which is more than every compiler gets right.
        const bool is_shared = LANES > 1 && count > FEW;
        const size_t begin = is_shared ? lane * WIDTH : 0, step = is_shared ? LANES * WIDTH : WIDTH;
        NORMS(COLLECT)
        ACROSS_LANES
        NORMS(NORM_OF)
#endif
        if (hyper[row * COLUMNS + ACTIVE] != 0) {
            const real ratio = tensor_ratio(c, sizes[tensor] NORMS(NORM_ARGUMENT));
            struct element x;
            EACH_VECTOR(start, stop, READ, update(&c, ratio, &x), WRITTEN, , )
        }
    }
}
