// sort: the elements of rows in stable order, and where each of them stood.
//
// Radix sort from the lowest digit of a key upwards. The key is an unsigned integer of the element's width, made from
// its bits alone, whose order is the one that is wanted: -0.0 has the key of 0.0, every NaN the largest one, and for
// descending order all other keys are complemented. A row is cut into parts of `chunk` items, one for each work-group,
// and a part into equal runs, one for each work-item. In each pass every work-item counts the digits of its run
// (sort_count), the counts become the places where its items of each digit go (sort_offsets), and it moves them there
// in order (sort_move), so equal digits keep their order. Rows of one part take all passes in one launch (sort_rows).
// The first pass reads x itself; the last one writes the results, each made from its key, or fetched from x where the
// key does not tell (zeros and NaN). Bytes moved per element and pass: the key twice, the item (key and place) once
// read and once written. Launch: a work-group per row and part.

// Unsigned type of an element's width, and the bits of its sign.
#ifndef WORD
#define WORD uint
#endif
#ifndef SIGN
#define SIGN 0x80000000u
#endif
// 0 for unsigned integers and bool, 1 for signed integers, 2 for floats.
#ifndef KIND
#define KIND 2
#endif
// The bits of infinity, for floats.
#ifndef INFINITE
#define INFINITE 0x7f800000u
#endif
#ifndef DESCENDING
#define DESCENDING 0 // 1 for descending order
#endif
// Unsigned type of a place in a row, and a vector for a key with its place.
#ifndef PLACE
#define PLACE uint
#endif
#ifndef ITEM
#define ITEM uint2
#endif
// Whether values are written, and places.
#ifndef VALUES
#define VALUES 1
#endif
#ifndef PLACES
#define PLACES 1
#endif
// Bits of a digit, at most those of WORD.
#ifndef BITS
#define BITS 8
#endif
// Work-items that share a part; on CPU runtimes 1.
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 1
#endif

// What is generated, here for rows along one axis.
#ifndef NETCL_GENERATED
// Each followed by a comma, for there may be none.
#define STRIDES const ulong x_kept0, const ulong out_kept0, const ulong places_kept0,
// From the row `rest` to where its elements begin.
#define KEPT_AXES                                                                                                      \
    const size_t u0 = rest;                                                                                            \
    const size_t x_kept = x_offset + u0 * x_kept0;                                                                     \
    const size_t out_kept = out_offset + u0 * out_kept0;                                                               \
    const size_t places_kept = places_offset + u0 * places_kept0;
#endif

#define DIGITS (1 << BITS)
#define DIGIT(key, shift) ((size_t)((key) >> (shift)) & (DIGITS - 1))
// Places are carried along where the key does not tell the value.
#define CARRIED (PLACES || KIND == 2)

// A key, and its place if it is carried.
#if CARRIED
typedef ITEM Item;
#define KEY(item) ((WORD)(item).s0)
#define MAKE_ITEM(key, place) (Item)(key, place)
#else
typedef WORD Item;
#define KEY(item) (item)
#define MAKE_ITEM(key, place) (key)
#endif

static inline WORD key_of(const WORD bits) {
#if KIND == 2
    if ((bits & (WORD)~SIGN) > INFINITE)
        return (WORD) ~(WORD)0;
    const WORD key = bits == SIGN ? SIGN : bits & SIGN ? (WORD)~bits : bits | SIGN;
#elif KIND == 1
    const WORD key = bits ^ SIGN;
#else
    const WORD key = bits;
#endif
    return DESCENDING ? (WORD)~key : key;
}

// What has this key, if the key tells.
static inline WORD bits_of(const WORD given) {
    const WORD key = DESCENDING ? (WORD)~given : given;
#if KIND == 2
    return key & SIGN ? (WORD)(key & (WORD)~SIGN) : (WORD)~key;
#elif KIND == 1
    return key ^ SIGN;
#else
    return key;
#endif
}

static inline bool tells(const WORD key) {
#if KIND == 2
    return key != (WORD) ~(WORD)0 && key != (DESCENDING ? (WORD)~SIGN : SIGN);
#else
    (void)key;
    return true;
#endif
}

// Where the elements of a row of x, of values and of places lie, and what takes a pass from one to another.
typedef struct {
    const __global WORD *x;
    size_t x_step;
    __global WORD *out;
    size_t out_step;
    __global long *places;
    size_t places_step;
} Row;

#define ROW                                                                                                            \
    const __global WORD *x, const ulong x_offset, __global WORD *out, const ulong out_offset, __global long *places,   \
        const ulong places_offset, STRIDES const ulong x_step, const ulong out_step, const ulong places_step
#define FIND_ROW(r)                                                                                                    \
    size_t rest = r;                                                                                                   \
    KEPT_AXES                                                                                                          \
    const Row row = {x + x_kept, x_step, out + out_kept, out_step, places + places_kept, places_step}

// Of a run, which is a work-item's own: how often each digit is there.
static inline void count_run(const Row *row, const __global Item *items, __local PLACE *counts, const size_t from,
                             const size_t to, const int shift, const int first) {
    const size_t own = get_local_id(0);
    for (size_t digit = 0; digit < DIGITS; ++digit)
        counts[digit * WORK_GROUP_SIZE + own] = 0;
    if (first) {
        for (size_t k = from; k < to; ++k)
            ++counts[DIGIT(key_of(row->x[k * row->x_step]), shift) * WORK_GROUP_SIZE + own];
    } else {
        for (size_t k = from; k < to; ++k)
            ++counts[DIGIT(KEY(items[k]), shift) * WORK_GROUP_SIZE + own];
    }
}

// The items of a run to where `counts` says for each digit.
static inline void move_run(const Row *row, const __global Item *items, __global Item *moved, __local PLACE *counts,
                            const size_t from, const size_t to, const int shift, const int first, const int last) {
    const size_t own = get_local_id(0);
    for (size_t k = from; k < to; ++k) {
        const Item item = first ? MAKE_ITEM(key_of(row->x[k * row->x_step]), k) : items[k];
        const WORD key = KEY(item);
        const size_t at = counts[DIGIT(key, shift) * WORK_GROUP_SIZE + own]++;
        if (last) {
#if VALUES && CARRIED
            row->out[at * row->out_step] = tells(key) ? bits_of(key) : row->x[item.s1 * row->x_step];
#elif VALUES
            row->out[at * row->out_step] = bits_of(key);
#endif
#if PLACES
            row->places[at * row->places_step] = (long)item.s1;
#endif
        } else {
            moved[at] = item;
        }
    }
}

// The own run of a part that begins at `start` and ends before `end`.
#define RUN                                                                                                            \
    const size_t own = get_local_id(0), each = (end - start + WORK_GROUP_SIZE - 1) / WORK_GROUP_SIZE;                  \
    const size_t from = min(start + own * each, end), to = min(from + each, end)

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
sort_count(ROW, const __global Item *items, __global PLACE *counts, const ulong extent, const ulong chunk,
           const ulong parts, const int shift, const int first) {
    __local PLACE mine[DIGITS * WORK_GROUP_SIZE];
    const size_t group = get_group_id(0), r = group / parts, part = group - r * parts;
    FIND_ROW(r);
    const size_t start = part * chunk, end = min(start + (size_t)chunk, (size_t)extent);
    RUN;
    count_run(&row, items + r * extent, mine, from, to, shift, first);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (size_t digit = own; digit < DIGITS; digit += WORK_GROUP_SIZE) {
        PLACE sum = 0;
        for (size_t other = 0; other < WORK_GROUP_SIZE; ++other)
            sum += mine[digit * WORK_GROUP_SIZE + other];
        counts[(r * DIGITS + digit) * parts + part] = sum;
    }
}

// counts[r, digit, part] <- how many items of row r come before those of the digit in the part. A work-group per row.
__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void sort_offsets(__global PLACE *counts,
                                                                                        const ulong parts) {
    __local PLACE sums[WORK_GROUP_SIZE];
    const size_t size = DIGITS * parts, start = get_group_id(0) * size, end = start + size;
    RUN;
    PLACE sum = 0;
    for (size_t k = from; k < to; ++k)
        sum += counts[k];
    sums[own] = sum;
    barrier(CLK_LOCAL_MEM_FENCE);
    PLACE before = 0;
    for (size_t other = 0; other < own; ++other)
        before += sums[other];
    for (size_t k = from; k < to; ++k) {
        const PLACE count = counts[k];
        counts[k] = before;
        before += count;
    }
}

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
sort_move(ROW, const __global Item *items, __global Item *moved, const __global PLACE *offsets, const ulong extent,
          const ulong chunk, const ulong parts, const int shift, const int first, const int last) {
    __local PLACE mine[DIGITS * WORK_GROUP_SIZE];
    const size_t group = get_group_id(0), r = group / parts, part = group - r * parts;
    FIND_ROW(r);
    const size_t start = part * chunk, end = min(start + (size_t)chunk, (size_t)extent);
    RUN;
#if WORK_GROUP_SIZE > 1
    count_run(&row, items + r * extent, mine, from, to, shift, first);
    barrier(CLK_LOCAL_MEM_FENCE);
#endif
    for (size_t digit = own; digit < DIGITS; digit += WORK_GROUP_SIZE) {
        PLACE before = offsets[(r * DIGITS + digit) * parts + part];
        for (size_t other = 0; other < WORK_GROUP_SIZE; ++other) {
            const PLACE count = WORK_GROUP_SIZE > 1 ? mine[digit * WORK_GROUP_SIZE + other] : 0;
            mine[digit * WORK_GROUP_SIZE + other] = before;
            before += count;
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    move_run(&row, items + r * extent, moved + r * extent, mine, from, to, shift, first, last);
}

// All passes of rows of one part; the items go back and forth between `items` and `moved`.
__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
sort_rows(ROW, __global Item *items, __global Item *moved, const ulong extent, const int passes) {
    __local PLACE mine[DIGITS * WORK_GROUP_SIZE];
    __local PLACE sums[WORK_GROUP_SIZE];
    const size_t r = get_group_id(0), start = 0, end = extent;
    FIND_ROW(r);
    RUN;
    __global Item *now = items + r * extent, *next = moved + r * extent;
    for (int pass = 0; pass < passes; ++pass) {
        const int shift = pass * BITS;
        count_run(&row, now, mine, from, to, shift, pass == 0);
        barrier(CLK_LOCAL_MEM_FENCE);
        // Every work-item sums a stretch of the counts, and begins where the others end.
        PLACE sum = 0;
        for (size_t k = own * DIGITS; k < (own + 1) * DIGITS; ++k)
            sum += mine[k];
        sums[own] = sum;
        barrier(CLK_LOCAL_MEM_FENCE);
        PLACE before = 0;
        for (size_t other = 0; other < own; ++other)
            before += sums[other];
        for (size_t k = own * DIGITS; k < (own + 1) * DIGITS; ++k) {
            const PLACE count = mine[k];
            mine[k] = before;
            before += count;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        move_run(&row, now, next, mine, from, to, shift, pass == 0, pass == passes - 1);
        barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
        __global Item *const free = now;
        now = next;
        next = free;
    }
}
