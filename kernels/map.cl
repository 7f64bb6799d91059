// map: outputs <- expression(inputs), element by element, over strided views of one shape.
//
// Each work-item goes through `per_item` elements of a row along the inner axis, WIDTH at a time. How an operand lies
// along that axis is part of the generated text: FETCH and PUT for stride 1, SPREAD for stride 0, GATHER and SCATTER
// for any other. Rows are counted by get_global_id(1); extents and strides are arguments, so that a kernel serves every
// shape. The end of a row is computed in whole vectors too, and only the lanes that exist are stored, so an element's
// value does not depend on where it lies. Outputs may be the very views that are inputs. Bytes moved per element: the
// size of every input and output, once. Launch: (inner axis / per_item, product of the outer axes), both rounded up to
// whole work-groups. `per_item` is a multiple of WIDTH: one vector on a GPU, hundreds of elements on a CPU.

#include "lanes.clh"

#pragma OPENCL FP_CONTRACT OFF

// Work-group size along the inner axis and across rows.
#ifndef GROUP_INNER
#define GROUP_INNER 64
#endif
#ifndef GROUP_OUTER
#define GROUP_OUTER 1
#endif

// What is generated, here for r0 = x0 + x1 * s0 in float32 with one outer axis. Offsets and strides count elements.
#ifndef NETCL_GENERATED
#define PARAMETERS                                                                                                     \
    const __global float *x0, const ulong x0_offset, const __global float *x1, const ulong x1_offset,                  \
        __global float *r0, const ulong r0_offset, const float s0, const ulong x0_stride0, const ulong x1_stride0,     \
        const ulong x1_lane, const ulong r0_stride0
// From the row number `rest` to where the row of each operand begins.
#define ROWS                                                                                                           \
    const size_t q0 = rest;                                                                                            \
    const size_t x0_row = x0_offset + q0 * x0_stride0;                                                                 \
    const size_t x1_row = x1_offset + q0 * x1_stride0;                                                                 \
    const size_t r0_row = r0_offset + q0 * r0_stride0;
#define LOADS                                                                                                          \
    FETCH(float32, v0, x0, x0_row + i)                                                                                 \
    GATHER(float32, v1, x1, x1_row + i * x1_lane, x1_lane)
#define STATEMENTS                                                                                                     \
    const float8 t0 = (float8)(s0);                                                                                    \
    const float8 t1 = v1 * t0;                                                                                         \
    const float8 t2 = v0 + t1;
#define STORES PUT(float32, t2, r0, r0_row + i)
#endif

__kernel __attribute__((reqd_work_group_size(GROUP_INNER, GROUP_OUTER, 1))) void
map(PARAMETERS, const ulong inner, const ulong outer, const ulong per_item) {
    size_t i = get_global_id(0) * per_item;
    size_t rest = get_global_id(1);
    if (i >= inner || rest >= outer)
        return;
    const size_t end = min(i + per_item, (size_t)inner);
    ROWS
        // Two copies, for a test in the loop would cost more than the arithmetic.
        for (; i + WIDTH <= end; i += WIDTH) {
        const bool whole = true;
        const size_t count = WIDTH;
        LOADS
        STATEMENTS
        STORES
    }
    if (i < end) {
        const bool whole = false;
        const size_t count = end - i;
        LOADS
        STATEMENTS
        STORES
    }
}
