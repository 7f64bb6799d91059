// batched_matmul_sum: out[b, m, n] = sum over s of partial[b, s, m, n], the second half of a product that was split
// along k, and the narrowing of one whose result is narrower than its arithmetic. The sum runs in the order of s.
//
// Elements moved per result: `k_splits` of partial, which is contiguous, and one of out.
// Launch: one work-item per result, the global size rounded up to whole work-groups.

#include "storage.clh"

// Tag of the dtype of out, and of the one whose arithmetic type partial has.
#ifndef OUT
#define OUT float32
#endif
#ifndef SUM
#define SUM float32
#endif
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 64
#endif

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
batched_matmul_sum(const __global COMPUTED(SUM) * partial, __global STORED(OUT) * out, const ulong out_offset,
                   const long out_b, const long out_m, const long out_n, const ulong batch, const ulong size_m,
                   const ulong size_n, const ulong k_splits) {
    const size_t i = get_global_id(0);
    const size_t matrix = size_m * size_n;
    if (i >= batch * matrix)
        return;
    const size_t b = i / matrix, in_matrix = i - b * matrix, m = in_matrix / size_n, n = in_matrix - m * size_n;
    partial += b * k_splits * matrix + in_matrix;
    COMPUTED(SUM) sum = partial[0];
    for (size_t s = 1; s < k_splits; ++s)
        sum += partial[s * matrix];
    const long at = (long)b * out_b + (long)m * out_m + (long)n * out_n;
    STORE(OUT, CONVERT(OUT, sum), out, (long)out_offset + at);
}
