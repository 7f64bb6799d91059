// scale: x <- a * x, for n elements from element `x_offset` on.
//
// `a` is a number, or with A defined one element of a buffer, read on the device.
// Bytes moved per element: twice its size (read and written once).
// Launch: one work-item per WIDTH * RUN elements, the global size rounded up to whole work-groups.

#include "storage.clh"

// Tag of the dtype of x.
#ifndef X
#define X float32
#endif
// A: tag of the dtype of the buffer that holds `a`; undefined if `a` is a number of x's arithmetic type.
// Elements per vector: 1, 2, 4 or, for dtypes of up to 4 bytes, 8.
#ifndef WIDTH
#define WIDTH 8
#endif
// Vectors of WIDTH elements per work-item, adjacent: on CPUs a longer stretch, on GPUs neighbours read neighbours.
#ifndef RUN
#define RUN 1
#endif
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 256
#endif

#define VECTOR(MACRO) STORAGE_PASTE(MACRO, WIDTH)

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void scale(
#ifdef A
    const __global STORED(A) *restrict factor, const ulong factor_offset,
#else
    const COMPUTED(X) factor,
#endif
    __global STORED(X) *restrict x, const ulong x_offset, const ulong n) {
#ifdef A
    const COMPUTED(X) a = CONVERT(X, LOAD(A, factor, factor_offset));
#else
    const COMPUTED(X) a = factor;
#endif
    const size_t first = get_global_id(0) * WIDTH * RUN;
    x += x_offset;
    for (size_t i = first; i < first + WIDTH * RUN; i += WIDTH) {
        if (i + WIDTH > n) {
            for (size_t j = i; j < n; ++j)
                STORE(X, a * LOAD(X, x, j), x, j);
            return;
        }
        VECTOR(STORE)(X, a * VECTOR(LOAD)(X, x, i), x, i);
    }
}
