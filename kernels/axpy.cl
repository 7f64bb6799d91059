// axpy: y <- a * x + y, for n elements from element `x_offset` of x and `y_offset` of y on.
//
// x and y may have different dtypes; both are converted to that of the arithmetic, and the sum to y's.
// `a` is a number, or with A defined one element of a buffer, read on the device.
// Bytes moved per element: the size of x, and twice the size of y.
// Launch: one work-item per WIDTH * RUN elements, the global size rounded up to whole work-groups.

#include "storage.clh"

// Tags of the dtypes of x and y.
#ifndef X
#define X float32
#endif
#ifndef Y
#define Y float32
#endif
// Tag of the dtype in whose arithmetic type the sum is formed.
#ifndef SUM
#define SUM float32
#endif
// A: tag of the dtype of the buffer that holds `a`; undefined if `a` is a number of the arithmetic type.
// Elements per vector: 1, 2, 4 or, where no dtype has 8 bytes, 8.
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

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void axpy(
#ifdef A
    const __global STORED(A) *restrict factor, const ulong factor_offset,
#else
    const COMPUTED(SUM) factor,
#endif
    const __global STORED(X) * x, const ulong x_offset, __global STORED(Y) * y, const ulong y_offset, const ulong n) {
#ifdef A
    const COMPUTED(SUM) a = CONVERT(SUM, LOAD(A, factor, factor_offset));
#else
    const COMPUTED(SUM) a = factor;
#endif
    const size_t first = get_global_id(0) * WIDTH * RUN;
    x += x_offset;
    y += y_offset;
    for (size_t i = first; i < first + WIDTH * RUN; i += WIDTH) {
        if (i + WIDTH > n) {
            for (size_t j = i; j < n; ++j) {
                const COMPUTED(SUM) sum = a * CONVERT(SUM, LOAD(X, x, j)) + CONVERT(SUM, LOAD(Y, y, j));
                STORE(Y, CONVERT(Y, sum), y, j);
            }
            return;
        }
        const VECTOR(COMPUTED)(SUM) sum =
            a * VECTOR(CONVERT)(SUM, VECTOR(LOAD)(X, x, i)) + VECTOR(CONVERT)(SUM, VECTOR(LOAD)(Y, y, i));
        VECTOR(STORE)(Y, VECTOR(CONVERT)(Y, sum), y, i);
    }
}
