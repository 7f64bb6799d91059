// softmax: out[r, c] = exp(x[r, c] - max) / sum, or its logarithm x[r, c] - max - log(sum), over the columns of a row,
// with max the row's largest element and sum = sum over c of exp(x[r, c] - max).
//
// A row that holds NaN or +inf, or nothing but -inf, becomes NaN, as the formula has it.
// Elements moved per result: three reads of x, whose row stays in cache, and one write of out.
// Launch: groups of ITEMS x ROWS; every ITEMS work-items take `rows_each` rows one after the other.

#include "storage.clh"

// Tags of the dtypes of x and out, and of the one in whose arithmetic type it is computed.
#ifndef X
#define X float32
#endif
#ifndef OUT
#define OUT float32
#endif
#ifndef SUM
#define SUM float32
#endif
// Elements per vector: 8, or 4 where one of the three dtypes has 8 bytes.
#ifndef WIDTH
#define WIDTH 8
#endif
// Work-items that share a row (a power of two), and rows that share a work-group: 1 and 1 on CPU runtimes.
#ifndef ITEMS
#define ITEMS 1
#endif
#ifndef ROWS
#define ROWS 1
#endif
// 1 for the logarithm.
#ifndef LOG
#define LOG 0
#endif

#include "row_statistics.clh"

__kernel __attribute__((reqd_work_group_size(ITEMS, ROWS, 1))) void
softmax(const __global STORED(X) * x, const ulong x_offset, __global STORED(OUT) * out, const ulong out_offset,
        const long x_r, const long x_c, const long out_r, const long out_c, const ulong rows, const ulong columns,
        const ulong rows_each) {
    __local REAL scratch[ITEMS * ROWS];
    for (size_t step = 0; step < rows_each; ++step) {
        // Work-items beyond the last row follow along at the barriers without storing.
        const size_t wanted = get_global_id(1) * rows_each + step, r = min(wanted, (size_t)rows - 1);
        const __global STORED(X) *row = x + x_offset + (long)r * x_r;
        __global STORED(OUT) *to = out + out_offset + (long)r * out_r;
        const REAL maximum = row_maximum(row, x_c, columns, scratch);
        const REAL sum = row_sum_of_exponentials(row, x_c, columns, maximum, scratch);
        if (wanted >= rows)
            continue;
        const REAL shift = LOG ? log(sum) : 1 / sum;
        const long stride = x_c == 1 && out_c == 1 ? 1 : 0;
        VECTORS(j, stride, columns) {
            const REALV centered = LOAD_REALS(row, j) - maximum;
            STORE_REALS(OUT, LOG ? centered - shift : exp(centered) * shift, to, j);
        }
        SINGLES(j, stride, columns) {
            const REAL centered = CONVERT(SUM, LOAD(X, row, (long)j * x_c)) - maximum;
            STORE(OUT, CONVERT(OUT, LOG ? centered - shift : exp(centered) * shift), to, (long)j * out_c);
        }
    }
}
