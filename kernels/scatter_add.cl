// scatter_add: out[o, indices[o, c, i], i] += updates[o, c, i], in the order of c, without atomics.
//
// A work-item owns `per_item` neighbours in i and one of `parts` equal ranges of the indexed axis of out. It walks all
// c in order and adds what falls into its range, so every sum has one owner and one order: the same call, the same
// bits. A negative index counts from the end. One out of range is skipped and `faults` is set. For an out of 16-bit
// floats, whose sums would stall, the sums go to a zeroed float32 scratch, which scatter_add_rounded then adds to out
// with one rounding. Elements moved: out twice per update, each update once, each index `parts` times. Launch: one
// work-item per (o, part, run of `per_item`), the global size rounded up to whole work-groups.

#include "storage.clh"

// Tags of the dtypes of updates and of out. The sum is formed in out's arithmetic type.
#ifndef X
#define X float32
#endif
#ifndef OUT
#define OUT float32
#endif
// Type of an index: int or long.
#ifndef INDEX
#define INDEX long
#endif
// What `faults` is set to.
#ifndef FAULT
#define FAULT 2
#endif
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 64
#endif

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
scatter_add(const __global STORED(X) * updates, const ulong updates_offset, const __global INDEX *indices,
            const ulong indices_offset, __global STORED(OUT) * out, const ulong out_offset, __global int *faults,
            const long updates_o, const long updates_c, const long updates_i, const long indices_o,
            const long indices_c, const long indices_i, const long out_o, const long out_n, const long out_i,
            const ulong outer, const ulong size_n, const ulong size_c, const ulong inner, const ulong per_item,
            const ulong items_per_row, const ulong parts) {
    const size_t item = get_global_id(0);
    if (item >= outer * parts * items_per_row)
        return;
    const size_t owner = item / items_per_row, i0 = (item - owner * items_per_row) * per_item;
    const size_t of_outer = owner / parts, part = owner - of_outer * parts;
    const long o = (long)of_outer, count = (long)min((size_t)per_item, (size_t)inner - i0);
    const long first = (long)(size_n * part / parts), last = (long)(size_n * (part + 1) / parts);
    updates += updates_offset + o * updates_o + (long)i0 * updates_i;
    indices += indices_offset + o * indices_o + (long)i0 * indices_i;
    out += out_offset + o * out_o + (long)i0 * out_i;
    int fault = 0;
    for (size_t c = 0; c < size_c; ++c) {
        if (indices_i == 0) {
            const long given = indices[0], n = given < 0 ? given + (long)size_n : given;
            fault |= n < 0 || n >= (long)size_n;
            if (n >= first && n < last)
                for (long i = 0; i < count; ++i) {
                    const long at = n * out_n + i * out_i;
                    STORE(OUT, LOAD(OUT, out, at) + CONVERT(OUT, LOAD(X, updates, i * updates_i)), out, at);
                }
        } else {
            for (long i = 0; i < count; ++i) {
                const long given = indices[i * indices_i], n = given < 0 ? given + (long)size_n : given;
                fault |= n < 0 || n >= (long)size_n;
                const long at = n * out_n + i * out_i;
                if (n >= first && n < last)
                    STORE(OUT, LOAD(OUT, out, at) + CONVERT(OUT, LOAD(X, updates, i * updates_i)), out, at);
            }
        }
        indices += indices_c;
        updates += updates_c;
    }
    if (fault)
        atomic_xchg(faults, FAULT);
}

// out[o, n, i] += sums[o, n, i], with sums contiguous and of out's arithmetic type. One work-item per element.
__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
scatter_add_rounded(const __global COMPUTED(OUT) * sums, __global STORED(OUT) * out, const ulong out_offset,
                    const long out_o, const long out_n, const long out_i, const ulong outer, const ulong size_n,
                    const ulong inner) {
    const size_t item = get_global_id(0);
    if (item >= outer * size_n * inner)
        return;
    const size_t row = item / inner, i = item - row * inner, o = row / size_n, n = row - o * size_n;
    out += out_offset + (long)o * out_o + (long)n * out_n + (long)i * out_i;
    STORE(OUT, LOAD(OUT, out, 0) + sums[item], out, 0);
}
