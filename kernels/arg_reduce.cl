// arg_reduce: out <- index of the first maximum (or minimum) along one axis; a NaN wins.
//
// A work-item scans one part of the axis for one position along the kept axes, in order. With several
// parts, each leaves the index of its best, and a second launch (CANDIDATES) compares these, again in order. Bytes
// moved per element: the size of x, once. Launch: positions times parts, rounded up to whole work-groups.

#include "storage.clh"

// Tag of the dtype of x, and whether it has NaN.
#ifndef X
#define X float32
#endif
#ifndef FLOATING
#define FLOATING 1
#endif
// 1 for argmax, 0 for argmin.
#ifndef LARGEST
#define LARGEST 1
#endif
// 1 to scan the indices that the first launch left instead of the whole axis.
#ifndef CANDIDATES
#define CANDIDATES 0
#endif
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 16
#endif

// What is generated, here for one kept axis.
#ifndef NETCL_GENERATED
#define STRIDES const ulong x_kept0, const ulong out_kept0, const ulong x_step
// From the position `rest` along the kept axes to where its elements begin.
#define KEPT_AXES                                                                                                      \
    const size_t u0 = rest;                                                                                            \
    const size_t x_kept = x_offset + u0 * x_kept0;                                                                     \
    const size_t out_kept = out_offset + u0 * out_kept0;
#endif

#if LARGEST
#define BEHIND(a, b) ((a) <= (b))
#else
#define BEHIND(a, b) ((a) >= (b))
#endif
// A NaN is behind nothing, and nothing beats it. One comparison settles nearly every element.
#if FLOATING
#define BEATS(a, b) (!BEHIND(a, b) && !isnan(b))
#else
#define BEATS(a, b) (!BEHIND(a, b))
#endif

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
arg_reduce(const __global STORED(X) * x, const ulong x_offset, __global long *out, const ulong out_offset,
#if CANDIDATES
           const __global long *candidates,
#endif
           STRIDES, const ulong out_part, const ulong kept, const ulong extent, const ulong part_size,
           const ulong parts) {
    const size_t item = get_global_id(0);
    const size_t part = item / kept;
    if (part >= parts)
        return;
    const size_t position = item - part * kept;
    size_t rest = position;
    KEPT_AXES
    const size_t first = part * part_size;
    const size_t end = min(first + part_size, (size_t)extent);
#if CANDIDATES
#define PLACE(k) ((size_t)candidates[(k) * kept + position])
#else
#define PLACE(k) (k)
#endif
    size_t found = PLACE(first);
    COMPUTED(X) best = LOAD(X, x, x_kept + found * x_step);
    for (size_t k = first + 1; k < end; ++k) {
        const size_t at = PLACE(k);
        const COMPUTED(X) value = LOAD(X, x, x_kept + at * x_step);
        if (BEATS(value, best)) {
            best = value;
            found = at;
        }
    }
    out[out_kept + part * out_part] = (long)found;
}
