// fill: x <- a, for n elements from element `offset` on.
//
// Works on the bits of an element, so one program serves every dtype of a width.
// Bytes moved per element: its size, written once.
// Launch: one work-item per 8 elements, the global size rounded up to whole work-groups.

// Unsigned integer as wide as an element: uchar, ushort, uint or ulong.
#ifndef WORD
#define WORD uint
#endif
// Its vector of 8.
#ifndef WORD8
#define WORD8 uint8
#endif
// Fixed, because a runtime may compile once for each size it meets.
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 256
#endif

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void fill(const WORD a, __global WORD *restrict x,
                                                                                const ulong offset, const ulong n) {
    const size_t i = get_global_id(0) * 8;
    x += offset;
    if (i + 8 <= n) {
        vstore8((WORD8)(a), 0, x + i);
    } else {
        for (size_t j = i; j < n; ++j)
            x[j] = a;
    }
}
