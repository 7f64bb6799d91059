// block_update: fused_update where some of the state is kept in blocks of few bits.
//
// A block is BLOCK numbers with one scale, their largest absolute value, and a code of 8 or 4 bits for each
// (netcl/quantization.py says what codes are worth). A work-group updates one chunk, a block at a time: it reads the
// codes, updates, keeps the new numbers, finds their largest, and writes their codes. Parameters, gradients and the
// other state are those of the first n elements; blocks are whole, and what is behind n counts as zero parameters with
// zero gradients.
// Bytes moved per element with two fields of 8 bits: sizes of p twice, g once, 2 * 2 * (1 + 4 / 256).
// Launch: ceil(n / CHUNK) work-groups of WORK_GROUP_SIZE, with ADVANCE one more. BLOCK must be a multiple of
// WIDTH * WORK_GROUP_SIZE, and WIDTH at least 2 where codes have 4 bits: two share a byte.

#ifndef NETCL_GENERATED
// The generated part is that of fused_update.cl, and
//   BLOCKS(FIELD)           FIELD(bits, name) for each state field in blocks
//   SIGNED_<name>           1 if the numbers of the field may be negative
//   DYNAMIC_<name>          1 if its codes are those of decades, and then also
//   UPPER_SHARE_LINES_<name>(LINE)  LINE(slope, value at 0) for the shares of the uppermost decades, as functions of
//                           the code
//   LOWER_SHARE_LINES_<name>(LINE)  the same for the other decades, which codes below LEAST_UPPER_CODE_<name> need
//   UPPER_CODE_LINES_<name>(LINE), LOWER_CODE_LINES_<name>(LINE), LEAST_UPPER_SHARE_<name>
//                           the same of the code, as functions of the share; less a half
//   TOP_<name>, TOP_EDGE_<name>  the code that is worth the whole scale, and from which share on
#define STATE(FIELD)
#define BLOCKS(FIELD) FIELD(8, m)
#define SIGNED_m 0
#define DYNAMIC_m 1
#define UPPER_SHARE_LINES_m(LINE) LINE(1.0f / 255, 0.0f)
#define LOWER_SHARE_LINES_m(LINE)
#define LEAST_UPPER_CODE_m 0
#define UPPER_CODE_LINES_m(LINE) LINE(255.0f, 0.0f)
#define LOWER_CODE_LINES_m(LINE)
#define LEAST_UPPER_SHARE_m 0.0f
#define TOP_m 255
#define TOP_EDGE_m 0.998f
#define COLUMN_VALUES(VALUE) VALUE(lr, 2)
#define COUNTER_VALUES(VALUE) VALUE(step, 0)
#define RULE                                                                                                           \
    const real_vector next_m = g * g;                                                                                  \
    const real_vector next_p = p - h.lr * m;
#define NUMBERED 0
#define COLUMNS 3
#define LOG_BETA1_COLUMN -1
#define LOG_BETA2_COLUMN -1
#endif

#include "rule_update.clh"

// Numbers of a block: 256 of 8 bits, or 128 of 4.
#ifndef BLOCK
#define BLOCK 256
#endif

#define VECTORS (BLOCK / (WIDTH * WORK_GROUP_SIZE))
#define CONVERT_VECTOR(T, v) STORAGE_PASTE(CONVERT, WIDTH)(T, v)

typedef VECTOR(uint8) code_vector;

// Codes from and to memory. Of two that share a byte the earlier is in its low half.
#if BLOCK == 256
static inline int_vector load_codes8(const __global uchar *p, const size_t at) {
    return CONVERT_VECTOR(int32, LOAD_VECTOR(uint8, p, at));
}
static inline void store_codes8(const int_vector codes, __global uchar *p, const size_t at) {
    STORE_VECTOR(uint8, CONVERT_VECTOR(uint8, codes), p, at);
}
#else
#if WIDTH == 8
typedef uchar4 code_bytes;
#define BYTES 4
#elif WIDTH == 4
typedef uchar2 code_bytes;
#define BYTES 2
#else
typedef uchar code_bytes;
#endif
#if WIDTH > 2
#define LOAD_BYTES(p, i) STORAGE_PASTE(LOAD, BYTES)(uint8, p, i)
#define STORE_BYTES(v, p, i) STORAGE_PASTE(STORE, BYTES)(uint8, v, p, i)
#else
#define LOAD_BYTES(p, i) p[i]
#define STORE_BYTES(v, p, i) p[i] = v
#endif
static inline int_vector load_codes4(const __global uchar *p, const size_t at) {
    const code_bytes bytes = LOAD_BYTES(p, at / 2);
    code_vector codes;
    codes.even = bytes & (uchar)15;
    codes.odd = bytes >> (uchar)4;
    return CONVERT_VECTOR(int32, codes);
}
static inline void store_codes4(const int_vector codes, __global uchar *p, const size_t at) {
    const code_vector found = CONVERT_VECTOR(uint8, codes);
    const code_bytes bytes = found.even | found.odd << (uchar)4;
    STORE_BYTES(bytes, p, at / 2);
}
#endif

#define AS_INT STORAGE_PASTE(AS_INT, WIDTH)
#define AS_REAL STORAGE_PASTE(AS_REAL, WIDTH)
#define AS_INT1 as_int
#define AS_INT2 as_int2
#define AS_INT4 as_int4
#define AS_INT8 as_int8
#define AS_REAL1 as_float
#define AS_REAL2 as_float2
#define AS_REAL4 as_float4
#define AS_REAL8 as_float8

#if WIDTH == 1
#define ANY(condition) (condition)
#elif defined(POCL_DEVICE_ADDRESS_BITS)
// PoCL's any() is a chain of branches.
static inline bool any_lane(const int_vector mask) {
#if WIDTH == 8
    const int4 four = mask.lo | mask.hi;
#elif WIDTH == 4
    const int4 four = mask;
#endif
#if WIDTH > 2
    const int2 two = four.lo | four.hi;
#else
    const int2 two = mask;
#endif
    return (two.s0 | two.s1) != 0;
}
#define ANY(condition) any_lane(condition)
#else
#define ANY(condition) any(condition)
#endif
#define REAL_ONE 0x3f800000

// A literal as if it had been read from memory, for `hidden` is 0 and no compiler knows it. CPU compilers keep such
// values in a work-item's memory, as vectors; literals they broadcast anew in each turn of a loop, and Intel's loads
// the address of each before. GPUs have literals in their instructions.
#if WORK_GROUP_SIZE == 1
#define CONSTANT(literal) as_float(as_int(literal) ^ hidden)
#else
#define CONSTANT(literal) (literal)
#endif

// Shares of a scale and codes, whose sign is the bit above TOP. The shares of a decade lie on a line, which is above
// the other decades' lines there and nowhere else; so do the codes, below. No share that is kept is negative, nor a
// code, so they are compared as the integers that their bits are, for which processors have more units. Decades below
// the uppermost three are gone through where a lane needs them, which in most blocks none does.
#define SHARE_LINE(slope, shift) size = max(size, AS_INT(m * slope + shift));
#define CODE_LINE(slope, shift) least = min(least, AS_INT(size * slope + shift));
#define UPPER_SHARE_LINE(slope, shift) SHARE_LINE(CONSTANT(slope), CONSTANT(shift))
#define UPPER_CODE_LINE(slope, shift) CODE_LINE(CONSTANT(slope), CONSTANT(shift))
#define DEFINE_DYNAMIC(name)                                                                                           \
    INLINE real_vector shares_##name(const int_vector codes, const int hidden) {                                       \
        const int_vector whole = SIGNED_##name ? codes & TOP_##name : codes;                                           \
        const real_vector m = CONVERT_VECTOR(float32, whole);                                                          \
        int_vector size = 0;                                                                                           \
        UPPER_SHARE_LINES_##name(UPPER_SHARE_LINE);                                                                    \
        if (ANY(whole < LEAST_UPPER_CODE_##name)) {                                                                    \
            LOWER_SHARE_LINES_##name(SHARE_LINE);                                                                      \
        }                                                                                                              \
        size = whole >= TOP_##name ? (int_vector)(REAL_ONE) : size;                                                    \
        return AS_REAL(SIGNED_##name ? size | (codes - whole) * (int)(0x80000000u / (TOP_##name + 1)) : size);         \
    }                                                                                                                  \
    INLINE int_vector codes_##name(const real_vector share, const int hidden) {                                        \
        const real_vector size = SIGNED_##name ? fabs(share) : share;                                                  \
        int_vector least = AS_INT((real_vector)(TOP_##name - 1));                                                      \
        UPPER_CODE_LINES_##name(UPPER_CODE_LINE);                                                                      \
        if (ANY(size < CONSTANT(LEAST_UPPER_SHARE_##name))) {                                                          \
            LOWER_CODE_LINES_##name(CODE_LINE);                                                                        \
        }                                                                                                              \
        least = size >= CONSTANT(TOP_EDGE_##name) ? AS_INT((real_vector)(TOP_##name)) : least;                         \
        if (!SIGNED_##name)                                                                                            \
            least = max(least, size > 0 ? (int_vector)(REAL_ONE) : (int_vector)(0));                                   \
        /* to the nearest whole number, which the last bits of a sum of such an exponent are */                        \
        const int_vector codes = AS_INT(AS_REAL(least) + CONSTANT(0x1p23f)) & TOP_##name;                              \
        return SIGNED_##name ? codes | (AS_INT(share) < 0 ? (int_vector)(TOP_##name + 1) : (int_vector)(0)) : codes;   \
    }
#define DEFINE_LINEAR(name)                                                                                            \
    INLINE real_vector shares_##name(const int_vector codes, const int hidden) {                                       \
        return (CONVERT_VECTOR(float32, codes) + 1.0f) * 0.0625f;                                                      \
    }                                                                                                                  \
    INLINE int_vector codes_##name(const real_vector share, const int hidden) {                                        \
        const int_vector codes = CONVERT_VECTOR(int32, share * 16.0f - 0.5f);                                          \
        return clamp(codes, 0, 15);                                                                                    \
    }
#define DEFINE_CODES0(name) DEFINE_LINEAR(name)
#define DEFINE_CODES1(name) DEFINE_DYNAMIC(name)
#define DEFINE_CODES(BITS, name) STORAGE_PASTE(DEFINE_CODES, DYNAMIC_##name)(name)
BLOCKS(DEFINE_CODES)

// Sizes are compared as the integers that their bits are: the order is the same, and NaN is the largest.
#define LARGER(a, b) max(a, b)
static inline int largest_lane(const int_vector v) {
#if WIDTH == 8
    const int4 four = max(v.lo, v.hi);
#elif WIDTH == 4
    const int4 four = v;
#endif
#if WIDTH >= 4
    return max(max(four.s0, four.s1), max(four.s2, four.s3));
#elif WIDTH == 2
    return max(v.s0, v.s1);
#else
    return v;
#endif
}

// Of a vector that goes beyond n, the elements before it; the others are zero, or are not written. Without an array of
// lanes, which PoCL 3.0 gets wrong among the work-items of a group.
#define LANE(T, name, i) (at + i < n ? LOAD(T, name, at + i) : 0)
#define WRITE_LANE(T, name, i, lane)                                                                                   \
    if (at + i < n)                                                                                                    \
        STORE(T, lane, name, at + i);
#if WIDTH == 1
#define READ_SOME(T, name) x.name = LANE(T, name, 0);
#define WRITE_SOME(T, name) WRITE_LANE(T, name, 0, x.name)
#else
#define SOME2(T, name, i) LANE(T, name, i), LANE(T, name, i + 1)
#define SOME4(T, name, i) SOME2(T, name, i), SOME2(T, name, i + 2)
#define SOME8(T, name, i) SOME4(T, name, i), SOME4(T, name, i + 4)
#define WRITE2(T, name, i, v) WRITE_LANE(T, name, i, (v).s0) WRITE_LANE(T, name, i + 1, (v).s1)
#define WRITE4(T, name, i, v) WRITE2(T, name, i, (v).lo) WRITE2(T, name, i + 2, (v).hi)
#define WRITE8(T, name, i, v) WRITE4(T, name, i, (v).lo) WRITE4(T, name, i + 4, (v).hi)
#define READ_SOME(T, name) x.name = (real_vector)(STORAGE_PASTE(SOME, WIDTH)(T, name, 0));
#define WRITE_SOME(T, name) STORAGE_PASTE(WRITE, WIDTH)(T, name, 0, x.name)
#endif

#define BLOCK_PARAMETERS(BITS, name)                                                                                   \
    , __global uchar *restrict name##_codes, const ulong name##_codes_offset, __global real *restrict name##_scales,   \
        const ulong name##_scales_offset
#define MOVE_BLOCKS(BITS, name)                                                                                        \
    name##_codes += name##_codes_offset;                                                                               \
    name##_scales += name##_scales_offset;
#define START_BLOCK(BITS, name)                                                                                        \
    const real old_##name = inside ? name##_scales[start / BLOCK] : 0;                                                 \
    int_vector most_##name = 0;                                                                                        \
    real_vector fresh_##name[VECTORS];
#define READ_CODES(BITS, name) x.name = shares_##name(load_codes##BITS(name##_codes, at), hidden) * old_##name;
#define KEEP(BITS, name)                                                                                               \
    fresh_##name[v] = x.name;                                                                                          \
    most_##name = max(AS_INT(fabs(x.name)), most_##name);
#define END_BLOCK(BITS, name)                                                                                          \
    int size_##name = largest_lane(most_##name);                                                                       \
    TREE(group_values, size_##name, LARGER)                                                                            \
    const real scale_##name = as_float(size_##name);                                                                   \
    if (inside && get_local_id(0) == 0)                                                                                \
        name##_scales[start / BLOCK] = scale_##name;                                                                   \
    const real reciprocal_##name = scale_##name >= 0x1p-126f ? 1 / scale_##name : 0;
#define WRITE_CODES(BITS, name)                                                                                        \
    store_codes##BITS(codes_##name(fresh_##name[v] * reciprocal_##name, hidden), name##_codes, at);

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
block_update(const __global real *restrict header, const ulong header_offset, const __global real *restrict hyper,
             const ulong hyper_offset, const __global real *restrict now, const ulong now_offset,
             __global real *restrict next, const ulong next_offset, const ulong row_count,
             const __global ushort *restrict rows, const ulong rows_offset, const ulong n,
             __global STORED(P) *restrict p, const ulong p_offset, const __global STORED(G) *restrict g,
             const ulong g_offset STATE(PARAMETER) BLOCKS(BLOCK_PARAMETERS)) {
#if WORK_GROUP_SIZE > 1
    __local int group_values[WORK_GROUP_SIZE];
#endif
    const int hidden = (int)(n >> 63);
    header += header_offset;
    hyper += hyper_offset;
    now += now_offset;
    // Work-items of a group meet at barriers, which PoCL 3.0 gets wrong in branches and behind a return. So a group
    // that has nothing to update goes the same way as the others, without reading or writing.
    const size_t first = get_group_id(0) * CHUNK;
    bool works = first < n && header[SKIP] == 0;
#if ADVANCE
    if (get_group_id(0) == get_num_groups(0) - 1) {
        advance_counters(get_local_id(0), WORK_GROUP_SIZE, row_count, header[SKIP], hyper, now, next + next_offset);
        works = false;
    }
#endif
    const size_t row = works ? rows[rows_offset + first / CHUNK] : 0;
    hyper += row * COLUMNS;
    works = works && hyper[ACTIVE] != 0;
    const struct coefficients c = read_coefficients(header, hyper, now + row * COUNTER_COUNT);
    MOVE(P, p)
    MOVE(G, g)
    STATE(MOVE)
    BLOCKS(MOVE_BLOCKS)
    for (size_t start = first; start < first + CHUNK; start += BLOCK) {
        const bool inside = works && start < n;
#if WORK_GROUP_SIZE == 1
        if (!inside)
            return;
#endif
        BLOCKS(START_BLOCK)
        for (size_t v = 0; inside && v < VECTORS; ++v) {
            const size_t at = start + (v * WORK_GROUP_SIZE + get_local_id(0)) * WIDTH;
            struct element x;
            BLOCKS(READ_CODES)
            NUMBER(at)
            if (at + WIDTH <= n) {
                READ_VECTOR(P, p)
                READ_VECTOR(G, g)
                STATE(READ_VECTOR)
                update(&c, &x);
                WRITE_VECTOR(P, p)
                STATE(WRITE_VECTOR)
            } else {
                READ_SOME(P, p)
                READ_SOME(G, g)
                STATE(READ_SOME)
                update(&c, &x);
                WRITE_SOME(P, p)
                STATE(WRITE_SOME)
            }
            BLOCKS(KEEP)
        }
#if WORK_GROUP_SIZE > 1
        barrier(CLK_GLOBAL_MEM_FENCE); // all have read the scales before one writes them
#endif
        BLOCKS(END_BLOCK)
        for (size_t v = 0; inside && v < VECTORS; ++v) {
            const size_t at = start + (v * WORK_GROUP_SIZE + get_local_id(0)) * WIDTH;
            BLOCKS(WRITE_CODES)
        }
    }
}
