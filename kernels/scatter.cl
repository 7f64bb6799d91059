// scatter: out[o, indices[o, c, i], i] = updates[o, c, i]; of several writes to one place the last in the order of c.
//
// A negative index counts from the end. One out of range is skipped and `faults` is set. Elements are moved as words,
// whatever their dtype. Two forms, of which both leave the same bits:
//   scatter         A work-item owns `chunk` neighbours in i and one of `parts` equal ranges of the indexed axis of
//   out.
//                   It walks all c in order and writes what falls into its range.
//   scatter_clear, scatter_claim, scatter_write
//                   One work-item per update. The place of each is cleared in `winners`, then claimed for the largest
//                   c + 1, then written by whoever holds it. Indices that are the same for all o or i are claimed once.
// Elements moved: each update and its place once, each index `parts` times (by claims: three times, and as many
// winners). Launch: one work-item per (o, part, chunk of i), or per update, rounded up to whole work-groups.

// Unsigned type of an element's width.
#ifndef WORD
#define WORD uint
#endif
// Type of an index: int or long.
#ifndef INDEX
#define INDEX long
#endif
// What `faults` is set to.
#ifndef FAULT
#define FAULT 4
#endif
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 64
#endif

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
scatter(const __global WORD *updates, const ulong updates_offset, const __global INDEX *indices,
        const ulong indices_offset, __global WORD *out, const ulong out_offset, __global int *faults,
        const long updates_o, const long updates_c, const long updates_i, const long indices_o, const long indices_c,
        const long indices_i, const long out_o, const long out_n, const long out_i, const ulong outer,
        const ulong size_n, const ulong size_c, const ulong inner, const ulong chunk, const ulong chunks,
        const ulong parts) {
    const size_t item = get_global_id(0);
    if (item >= outer * parts * chunks)
        return;
    const size_t owner = item / chunks, i0 = (item - owner * chunks) * chunk;
    const size_t of_outer = owner / parts, part = owner - of_outer * parts;
    const long o = (long)of_outer, count = (long)min((size_t)chunk, (size_t)inner - i0);
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
                for (long i = 0; i < count; ++i)
                    out[n * out_n + i * out_i] = updates[i * updates_i];
        } else {
            for (long i = 0; i < count; ++i) {
                const long given = indices[i * indices_i], n = given < 0 ? given + (long)size_n : given;
                fault |= n < 0 || n >= (long)size_n;
                if (n >= first && n < last)
                    out[n * out_n + i * out_i] = updates[i * updates_i];
            }
        }
        indices += indices_c;
        updates += updates_c;
    }
    if (fault)
        atomic_xchg(faults, FAULT);
}

// The index (o, c, i) of the own update, and the place n that it names.
#define PLACE                                                                                                          \
    const size_t item = get_global_id(0);                                                                              \
    if (item >= outer * size_c * inner)                                                                                \
        return;                                                                                                        \
    const size_t row = item / inner, of_outer = row / size_c;                                                          \
    const long i = (long)(item - row * inner), o = (long)of_outer, c = (long)(row - of_outer * size_c);                \
    const long given = indices[(long)indices_offset + o * indices_o + c * indices_c + i * indices_i];                  \
    const long n = given < 0 ? given + (long)size_n : given;                                                           \
    const int inside = n >= 0 && n < (long)size_n;

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
scatter_clear(const __global INDEX *indices, const ulong indices_offset, __global int *winners, const long indices_o,
              const long indices_c, const long indices_i, const ulong outer, const ulong size_n, const ulong size_c,
              const ulong inner) {
    PLACE
    if (inside)
        winners[(o * (long)size_n + n) * (long)inner + i] = 0;
}

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
scatter_claim(const __global INDEX *indices, const ulong indices_offset, __global int *winners, __global int *faults,
              const long indices_o, const long indices_c, const long indices_i, const ulong outer, const ulong size_n,
              const ulong size_c, const ulong inner) {
    PLACE
    if (inside)
        atomic_max(winners + (o * (long)size_n + n) * (long)inner + i, (int)c + 1);
    else
        atomic_xchg(faults, FAULT);
}

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
scatter_write(const __global WORD *updates, const ulong updates_offset, const __global INDEX *indices,
              const ulong indices_offset, __global WORD *out, const ulong out_offset, const __global int *winners,
              const long updates_o, const long updates_c, const long updates_i, const long indices_o,
              const long indices_c, const long indices_i, const long out_o, const long out_n, const long out_i,
              const long winners_o, const long winners_n, const long winners_i, const ulong outer, const ulong size_n,
              const ulong size_c, const ulong inner) {
    PLACE
    if (inside && winners[o * winners_o + n * winners_n + i * winners_i] == (int)c + 1)
        out[(long)out_offset + o * out_o + n * out_n + i * out_i] =
            updates[(long)updates_offset + o * updates_o + c * updates_c + i * updates_i];
}
