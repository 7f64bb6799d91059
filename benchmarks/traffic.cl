// traffic: moves the bytes of an optimizer update and computes next to nothing; what the update can be at best.
//
// Per element: p and each state field are read and written, g is read: with float32 and FIELDS of 1 that is 20 bytes,
// with 2 it is 28. Vectors, elements per work-item and work-group are those of kernels/step.clh on a CPU.
// Launch: ceil(n / (WIDTH * RUN)) work-items in whole work-groups.

// State fields: 0 to 3.
#ifndef FIELDS
#define FIELDS 2
#endif
// Vectors of eight per work-item.
#ifndef RUN
#define RUN 16
#endif
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 8
#endif

#define ADD(x) vstore8(vload8(0, x + at) + change, 0, x + at);

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
traffic(const ulong n, const __global float *restrict g, __global float *restrict p
#if FIELDS > 0
        ,
        __global float *restrict first
#endif
#if FIELDS > 1
        ,
        __global float *restrict second
#endif
#if FIELDS > 2
        ,
        __global float *restrict third
#endif
) {
    const size_t start = get_global_id(0) * 8 * RUN;
    for (size_t at = start; at < start + 8 * RUN && at + 8 <= n; at += 8) {
        const float8 change = vload8(0, g + at);
        ADD(p)
#if FIELDS > 0
        ADD(first)
#endif
#if FIELDS > 1
        ADD(second)
#endif
#if FIELDS > 2
        ADD(third)
#endif
    }
}
