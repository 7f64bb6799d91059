// traffic: moves the bytes of an optimizer update and computes next to nothing; what the update can be at best.
//
// Per element: p and each state field are read and written, g is read: with float32 and FIELDS of 1 that is 20 bytes,
// with 2 it is 28. Vectors, elements per work-item and work-group are those of kernels/step.clh on a CPU.
// Launch: ceil(n / (8 * RUN)) work-items in whole work-groups.

// State fields: 0 to 3.
#ifndef FIELDS
#define FIELDS 2
#endif
// Vectors of eight per work-item.
#ifndef RUN
#define RUN 128
#endif
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 1
#endif

#if FIELDS == 0
#define STATE(FIELD)
#elif FIELDS == 1
#define STATE(FIELD) FIELD(first)
#elif FIELDS == 2
#define STATE(FIELD) FIELD(first) FIELD(second)
#else
#define STATE(FIELD) FIELD(first) FIELD(second) FIELD(third)
#endif
#define PARAMETER(name) , __global float *restrict name
#define ADD(name) vstore8(vload8(0, name + at) + change, 0, name + at);

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
traffic(const ulong n, const __global float *restrict g, __global float *restrict p STATE(PARAMETER)) {
    const size_t start = get_global_id(0) * 8 * RUN;
    for (size_t at = start; at < start + 8 * RUN && at + 8 <= n; at += 8) {
        const float8 change = vload8(0, g + at);
        ADD(p)
        STATE(ADD)
    }
}
