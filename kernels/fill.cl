// fill: x <- a, for n elements from element `offset` on.
//
// Works on the bits of an element, so one program serves every dtype of a width.
// Bytes moved per element: its size, written once.
// Launch: one work-item per WIDTH * RUN elements, the global size rounded up to whole work-groups.

// Unsigned integer as wide as an element: uchar, ushort, uint or ulong.
#ifndef WORD
#define WORD uint
#endif
// Elements per vector: 1, 2, 4 or, for words of up to 4 bytes, 8.
#ifndef WIDTH
#define WIDTH 8
#endif
// Vectors of WIDTH elements per work-item, adjacent: on CPUs a longer stretch, on GPUs neighbours read neighbours.
#ifndef RUN
#define RUN 1
#endif
// Fixed, because a runtime may compile once for each size it meets.
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 256
#endif

#if WIDTH == 1
#define STORE_WORDS(v, p) *(p) = v
#else
#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define STORE_WORDS(v, p) PASTE(vstore, WIDTH)((PASTE(WORD, WIDTH))(v), 0, p)
#endif

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void fill(const WORD a, __global WORD *restrict x,
                                                                                const ulong offset, const ulong n) {
    const size_t first = get_global_id(0) * WIDTH * RUN;
    x += offset;
    for (size_t i = first; i < first + WIDTH * RUN; i += WIDTH) {
        if (i + WIDTH > n) {
            for (size_t j = i; j < n; ++j)
                x[j] = a;
            return;
        }
        STORE_WORDS(a, x + i);
    }
}
