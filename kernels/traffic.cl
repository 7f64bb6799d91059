// traffic: moves the bytes of another kernel and computes next to nothing; what that kernel can be at best.
//
// Per element it reads READ arrays, reads and writes UPDATED arrays, and writes WRITTEN arrays, with the shapes of
// step.clh. What is left over behind the last whole share of a work-item stays as it is.
// Bytes moved per element: 4 * READ + 8 * UPDATED + 4 * WRITTEN; 28 like Adam with READ 1 and UPDATED 3.
// `keep` is 0; else what was read would be written to r, once for each work-item.
// Launch: ceil(n / (WIDTH * RUN)) work-items in whole work-groups.

#include "step.clh"

// Arrays that are only read: 0 or 1.
#ifndef READ
#define READ 1
#endif
// Arrays that are read and written: 0 to 4.
#ifndef UPDATED
#define UPDATED 3
#endif
// Arrays that are only written: 0 or 1.
#ifndef WRITTEN
#define WRITTEN 0
#endif

#if UPDATED == 0
#define EACH_UPDATED(FIELD)
#elif UPDATED == 1
#define EACH_UPDATED(FIELD) FIELD(u0)
#elif UPDATED == 2
#define EACH_UPDATED(FIELD) FIELD(u0) FIELD(u1)
#elif UPDATED == 3
#define EACH_UPDATED(FIELD) FIELD(u0) FIELD(u1) FIELD(u2)
#else
#define EACH_UPDATED(FIELD) FIELD(u0) FIELD(u1) FIELD(u2) FIELD(u3)
#endif
#if WRITTEN
#define EACH_WRITTEN(FIELD) FIELD(w)
#else
#define EACH_WRITTEN(FIELD)
#endif
#if WIDTH == 1
typedef uint bits_vector;
#define AS_BITS as_uint
#define AS_REAL as_float
#else
typedef STORAGE_PASTE(uint, WIDTH) bits_vector;
#define AS_BITS STORAGE_PASTE(as_uint, WIDTH)
#define AS_REAL STORAGE_PASTE(as_float, WIDTH)
#endif
#define ARRAY(name) , __global real *restrict name
#define CHANGE(name) STORE_VECTOR(REAL, LOAD_VECTOR(REAL, name, at) + change, name, at);
#define WRITE(name) STORE_VECTOR(REAL, change, name, at);

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
traffic(const ulong n, const ulong keep, __global real *restrict r EACH_UPDATED(ARRAY) EACH_WRITTEN(ARRAY)) {
    const size_t first = FIRST_ELEMENT;
    if (LAST_END(first) > n)
        return;
    // An addition would make each load wait for the one before.
    bits_vector seen = 0;
    real_vector change = 1;
    for (size_t at = first; at < LAST_END(first); at += STRIDE) {
#if READ
        change = LOAD_VECTOR(REAL, r, at);
#endif
#if !UPDATED && !WRITTEN
        seen |= AS_BITS(change);
#endif
        EACH_UPDATED(CHANGE)
        EACH_WRITTEN(WRITE)
    }
    // Never so, but a compiler cannot know that, and has to read.
    if (keep)
        STORE_VECTOR(REAL, AS_REAL(seen), r, first);
}
