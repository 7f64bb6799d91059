// gather: out[o, c, i] = x[o, indices[o, c, i], i].
//
// A negative index counts from the end. For one out of range nothing is read: the result is zero and `faults` is set.
// Elements are moved as words, whatever their dtype.
// Elements moved per result: one index, one of x, one of out.
// Launch: one work-item for each run of `per_item` neighbours in i, the global size rounded up to whole work-groups.

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
#define FAULT 1
#endif
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 64
#endif

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
gather(const __global WORD *x, const ulong x_offset, const __global INDEX *indices, const ulong indices_offset,
       __global WORD *out, const ulong out_offset, __global int *faults, const long x_o, const long x_n, const long x_i,
       const long indices_o, const long indices_c, const long indices_i, const long out_o, const long out_c,
       const long out_i, const ulong outer, const ulong size_n, const ulong size_c, const ulong inner,
       const ulong per_item, const ulong items_per_row) {
    const size_t item = get_global_id(0);
    if (item >= outer * size_c * items_per_row)
        return;
    const size_t row = item / items_per_row, i0 = (item - row * items_per_row) * per_item,
                 i1 = min((size_t)inner, i0 + (size_t)per_item);
    const long o = (long)(row / size_c), c = (long)row - o * (long)size_c;
    x += x_offset + o * x_o;
    indices += indices_offset + o * indices_o + c * indices_c;
    out += out_offset + o * out_o + c * out_c;
    int fault = 0;
    if (indices_i == 0) {
        const long given = indices[0], n = given < 0 ? given + (long)size_n : given;
        if (n >= 0 && n < (long)size_n) {
            for (long i = (long)i0; i < (long)i1; ++i)
                out[i * out_i] = x[n * x_n + i * x_i];
        } else {
            fault = 1;
            for (long i = (long)i0; i < (long)i1; ++i)
                out[i * out_i] = 0;
        }
    } else {
        for (long i = (long)i0; i < (long)i1; ++i) {
            const long given = indices[i * indices_i], n = given < 0 ? given + (long)size_n : given;
            const int inside = n >= 0 && n < (long)size_n;
            if (inside)
                out[i * out_i] = x[n * x_n + i * x_i];
            else
                out[i * out_i] = 0;
            fault |= !inside;
        }
    }
    if (fault)
        atomic_xchg(faults, FAULT);
}
