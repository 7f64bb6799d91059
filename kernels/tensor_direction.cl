// tensor_direction: the first of two passes of a rule with values of whole tensors. It makes the direction of every
// element and moves its state on, and leaves records of norms for tensor_update.
//
// The rule is set in from Python. Per element: state <- rule(p, g * multiplier * sign, *state, hyper-parameters of the
// row, its counters), where the last field of the state is the direction; each norm is that of a value made of p and
// the state as they are then. Fields that stay as they are are not written, those that are not needed not read.
// Squares are added as they are; where that could have lost something, the piece is looked at again with its largest
// magnitude known, while it is in a cache. Sums have a fixed order, without atomics.
// If the header's skip is set nothing is written, nor any field in the chunks of inactive rows.
// Bytes moved per element: sizes of what is read and written; for LAMB in float32, 28.
// Launch: one work-group for each block, with ADVANCE one more.

#ifndef NETCL_GENERATED
// By default the direction is the gradient. Of the generated part, beside what tensors.clh wants:
//   MEASURED(FIELD)         FIELD(tag, name) for the fields that the norms are made of
//   RULE                    statements that compute next_<field> for WRITTEN from p, g, the fields, and h.<name>
//   MEASURE_NEXT            statements that compute measured_<norm> from these
//   MEASURE                 the same from the fields as they were written
#define STATE(FIELD) FIELD(float32, s0)
#define READ(FIELD) FIELD(P, p) FIELD(G, g)
#define WRITTEN(FIELD) FIELD(float32, s0)
#define MEASURED(FIELD) FIELD(P, p) FIELD(float32, s0)
#define NORMS(NORM) NORM(0, n0) NORM(1, n1)
#define COLUMN_VALUES(VALUE)
#define COUNTER_VALUES(VALUE) VALUE(step, 0)
#define RULE const real_vector next_s0 = h.gradient_factor * (h.prescale * g);
#define MEASURE_NEXT const real_vector measured_n0 = p, measured_n1 = next_s0;
#define MEASURE const real_vector measured_n0 = p, measured_n1 = s0;
#define COLUMNS 3
#define LOG_BETA1_COLUMN -1
#define LOG_BETA2_COLUMN -1
#endif

#include "tensors.clh"

#define TO_NORM(number, name) x->name = measured_##name;

INLINE void update(const struct coefficients *c, struct element *x) {
    const struct coefficients h = *c;
    READ(FROM_ELEMENT)
    RULE MEASURE_NEXT WRITTEN(TO_ELEMENT) NORMS(TO_NORM)
}

static inline void measure(struct element *x) {
    MEASURED(FROM_ELEMENT)
    MEASURE NORMS(TO_NORM)
}

// What each addition of a chunk's sum rounds away is `lost`, and carried to the next (W. Kahan, 1965).
struct totals {
    bits_vector largest;
    real_vector sum, lost;
};

static inline void add(struct totals *t, const real_vector x) {
    t->largest = max(t->largest, AS_BITS(fabs(x)));
    t->sum += x * x;
}

static inline void add_one(struct totals *t, const real_vector x) {
    real_vector one = 0;
    FIRST_LANE(one) = FIRST_LANE(x);
    add(t, one);
}

static inline void add_chunk(struct totals *t, const struct totals chunk) {
    const real_vector term = chunk.sum - t->lost, sum = t->sum + term;
    t->lost = sum - t->sum - term;
    t->sum = sum;
    t->largest = max(t->largest, chunk.largest);
}

#define NO_TOTALS(number, name) struct totals all_##name = {(bits_vector)(0), (real_vector)(0), (real_vector)(0)};
#define BEGIN_CHUNK(number, name) struct totals name = {(bits_vector)(0), (real_vector)(0), (real_vector)(0)};
#define ADD_VECTOR(number, name) add(&name, x.name);
#define ADD_ONE(number, name) add_one(&name, x.name);
#define END_CHUNK(number, name) add_chunk(&all_##name, name);

// All chunks of a piece, up to element `stop`.
#define EACH_CHUNK(stop, FIELDS, COMPUTE, RESULTS)                                                                     \
    for (size_t from = start; from < (stop); from += CHUNK) {                                                          \
        const size_t until = min((size_t)(stop), from + CHUNK);                                                        \
        NORMS(BEGIN_CHUNK)                                                                                             \
        EACH_VECTOR(from, until, FIELDS, COMPUTE, RESULTS, NORMS(ADD_VECTOR), NORMS(ADD_ONE))                          \
        NORMS(END_CHUNK)                                                                                               \
    }

#define NO_FIELDS(FIELD)
#define ACROSS_VECTOR(number, name)                                                                                    \
    bits largest_##name = ACROSS(max, all_##name.largest);                                                             \
    real sum_##name = ACROSS(ADD, all_##name.sum);
#define SUM_AGAIN(number, name)                                                                                        \
    sum_##name = is_enough ? sum_##name * (factor_##name * factor_##name) : ACROSS(ADD, all_##name.sum);
#define CLEAR(number, name) all_##name.sum = all_##name.lost = 0;

// Combines what the work-items of a group have found of every norm, in a fixed order; each gets the result. `widest` is
// half of LANES, or 0 where all have the same.
#if LANES > 1 && NORM_COUNT > 0
#define PUT(number, name)                                                                                              \
    lane_largest[number][lane] = largest_##name;                                                                       \
    lane_sum[number][lane] = sum_##name;
#define MEET(number, name)                                                                                             \
    lane_largest[number][lane] = max(lane_largest[number][lane], lane_largest[number][lane + width]);                  \
    lane_sum[number][lane] += lane_sum[number][lane + width];
#define GET(number, name)                                                                                              \
    largest_##name = lane_largest[number][0];                                                                          \
    sum_##name = lane_sum[number][0];
#define ACROSS_LANES(widest)                                                                                           \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                                      \
    NORMS(PUT)                                                                                                         \
    for (size_t width = widest; width > 0; width /= 2) {                                                               \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        if (lane < width) {                                                                                            \
            NORMS(MEET)                                                                                                \
        }                                                                                                              \
    }                                                                                                                  \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                                      \
    NORMS(GET)
#else
#define ACROSS_LANES(widest)
#endif

#define FACTOR(number, name) const real factor_##name = POWER_OF_TWO(-exponent_of(largest_##name));
#define IS_SAFE(number, name)                                                                                          \
    &&(largest_##name == 0 || largest_##name >= INFINITE_BITS || is_safe(exponent_of(largest_##name)))
#define SCALE(number, name) x.name *= factor_##name;
#define WRITE_RECORD(number, name)                                                                                     \
    write_record(records + 2 * number * pieces + piece, pieces, largest_##name, 1 / factor_##name, sum_##name);

// All zeros give (0, 0), an infinity (infinity, 1), a NaN (NaN, NaN).
static inline void write_record(__global real *at, const size_t pieces, const bits largest, const real scale,
                                const real sum) {
    const real magnitude = AS_REAL(largest);
    const bool is_usual = largest != 0 && largest < INFINITE_BITS;
    at[0] = is_usual ? scale : magnitude;
    at[pieces] = is_usual ? sum : isinf(magnitude) ? 1 : magnitude;
}

__kernel __attribute__((reqd_work_group_size(LANES, 1, 1))) void
tensor_direction(const __global real *restrict header, const ulong header_offset, const __global real *restrict hyper,
                 const ulong hyper_offset, const __global real *restrict now, const ulong now_offset,
                 __global real *restrict next, const ulong next_offset, const ulong row_count,
                 const __global ushort *restrict rows, const ulong rows_offset, const __global long *restrict first,
                 const ulong first_offset, const __global ushort *restrict of_chunk, const ulong of_chunk_offset,
                 __global real *restrict records, const ulong records_offset, const ulong pieces, const ulong per_block,
                 const ulong first_chunk, const ulong n, __global STORED(P) *restrict p, const ulong p_offset,
                 const __global STORED(G) *restrict g, const ulong g_offset STATE(PARAMETER)) {
#if LANES > 1 && NORM_COUNT > 0
    __local bits lane_largest[NORM_COUNT][LANES];
    __local real lane_sum[NORM_COUNT][LANES];
#endif
    const size_t lane = get_local_id(0);
    header += header_offset;
    hyper += hyper_offset;
    now += now_offset;
#if ADVANCE
    if (get_group_id(0) == get_num_groups(0) - 1) {
        advance_counters(lane, LANES, row_count, header[SKIP], hyper, now, next + next_offset);
        return;
    }
#endif
    if (header[SKIP] != 0)
        return;
    rows += rows_offset;
    first += first_offset;
    of_chunk += of_chunk_offset;
    records += records_offset;
    MOVE(P, p)
    MOVE(G, g)
    STATE(MOVE)
    const size_t block = first_chunk / per_block + get_group_id(0);
    const size_t last = min((size_t)((block + 1) * per_block), (size_t)(first_chunk + (n + CHUNK - 1) / CHUNK));
    for (size_t chunk = max((size_t)(block * per_block), (size_t)first_chunk); chunk < last;) {
        const size_t tensor = of_chunk[chunk], piece = block + tensor;
        const size_t row = rows[chunk - first_chunk];
        const size_t start = (chunk - first_chunk) * CHUNK;
        chunk = min(last, (size_t)first[tensor + 1]);
        const size_t end = min((size_t)n, (size_t)((chunk - first_chunk) * CHUNK));
        // Where nothing moves there are no elements. A barrier in a branch is more than every compiler gets right.
        const size_t stop = hyper[row * COLUMNS + ACTIVE] != 0 ? end : start;
        const struct coefficients c = read_coefficients(header, hyper + row * COLUMNS, now + row * COUNTER_COUNT);
        struct element x;
        NORMS(NO_TOTALS)
        EACH_CHUNK(stop, READ, update(&c, &x), WRITTEN)
#if NORM_COUNT > 0
        NORMS(ACROSS_VECTOR)
        ACROSS_LANES(LANES / 2)
        NORMS(FACTOR)
        const bool is_enough = true NORMS(IS_SAFE);
        const size_t stop_again = is_enough ? start : stop;
        NORMS(CLEAR)
        EACH_CHUNK(stop_again, MEASURED, measure(&x); NORMS(SCALE), NO_FIELDS)
        NORMS(SUM_AGAIN)
        ACROSS_LANES(is_enough ? 0 : LANES / 2)
        if (lane == 0) {
            NORMS(WRITE_RECORD)
        }
#endif
    }
}
