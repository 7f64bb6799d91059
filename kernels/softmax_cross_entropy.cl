// softmax_cross_entropy: per row r of x, with lse = log of the sum over c of exp(x[r, c]) and s the label smoothing,
//   loss[r] = (1 - s) * (lse - x[r, label]) + s * (lse - mean of x[r, :]),
//   gradient[r, c] = exp(x[r, c] - lse) - (1 - s) * (c == label) - s / columns, the derivative of loss[r].
//
// Both are zero where the label is `ignore`, and where it is out of range, which sets `faults`.
// Elements moved per element of x: up to four reads, while the row stays in cache, and one write of the gradient.
// Source: C. Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2016 (label smoothing).
// Launch: groups of ITEMS x ROWS; every ITEMS work-items take `rows_each` rows one after the other.

#include "storage.clh"

// Tags of the dtypes of x, loss and gradient, and of the one in whose arithmetic type they are computed.
#ifndef X
#define X float32
#endif
#ifndef LOSS
#define LOSS float32
#endif
#ifndef GRADIENT
#define GRADIENT float32
#endif
#ifndef SUM
#define SUM float32
#endif
// Type of a label: int or long.
#ifndef LABEL
#define LABEL long
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
// 1 if the gradient is wanted; otherwise any buffer may be passed for it.
#ifndef WITH_GRADIENT
#define WITH_GRADIENT 1
#endif
// What `faults` is set to.
#ifndef FAULT
#define FAULT 3
#endif

#include "row_statistics.clh"

static inline REAL row_sum(const __global STORED(X) * row, const long stride, const size_t columns,
                           __local REAL *scratch) {
    REALV lanes = 0;
    VECTORS(j, stride, columns)
    lanes += LOAD_REALS(row, j);
    REAL value = JOIN_LANES(lanes, SUM_OF_TWO);
    SINGLES(j, stride, columns)
    value += CONVERT(SUM, LOAD(X, row, (long)j * stride));
    JOIN_ITEMS(value, SUM_OF_TWO)
    return value;
}

__kernel __attribute__((reqd_work_group_size(ITEMS, ROWS, 1))) void
softmax_cross_entropy(const __global STORED(X) * x, const ulong x_offset, const __global LABEL *labels,
                      const ulong labels_offset, __global STORED(LOSS) * loss, const ulong loss_offset,
                      __global STORED(GRADIENT) * gradient, const ulong gradient_offset, __global int *faults,
                      const REAL smoothing, const long x_r, const long x_c, const long labels_r, const long loss_r,
                      const long gradient_r, const long gradient_c, const ulong rows, const ulong columns,
                      const long ignore, const ulong rows_each) {
    __local REAL scratch[ITEMS * ROWS];
    for (size_t step = 0; step < rows_each; ++step) {
        // Work-items beyond the last row follow along at the barriers without storing.
        const size_t wanted = get_global_id(1) * rows_each + step, r = min(wanted, (size_t)rows - 1);
        const __global STORED(X) *row = x + x_offset + (long)r * x_r;
        const long label = labels[(long)labels_offset + (long)r * labels_r];
        const int known = label >= 0 && label < (long)columns && label != ignore;
        const REAL label_logit = known ? CONVERT(SUM, LOAD(X, row, label * x_c)) : 0;
        const REAL maximum = row_maximum(row, x_c, columns, scratch);
        const REAL sum = row_sum_of_exponentials(row, x_c, columns, maximum, scratch);
        // Without smoothing the mean is left out, for 0 times an infinite mean would be NaN.
        const REAL total = smoothing != 0 ? row_sum(row, x_c, columns, scratch) : 0;
#if ITEMS > 1
        barrier(CLK_GLOBAL_MEM_FENCE); // the gradient may overwrite the row, so everyone must have read the logit
#endif
        if (wanted >= rows)
            continue;
        if (get_local_id(0) == 0) {
            REAL value = 0;
            if (known) {
                const REAL log_sum = log(sum);
                value = (1 - smoothing) * (log_sum - (label_logit - maximum));
                if (smoothing != 0)
                    value += smoothing * (log_sum - (total / columns - maximum));
            } else if (label != ignore) {
                atomic_xchg(faults, FAULT);
            }
            STORE(LOSS, CONVERT(LOSS, value), loss, (long)loss_offset + (long)r * loss_r);
        }
        if (!WITH_GRADIENT)
            continue;
        __global STORED(GRADIENT) *to = gradient + gradient_offset + (long)r * gradient_r;
        const REAL shared = smoothing / columns, scale = 1 / sum;
        const long at_label = known ? label : -1;
        const long stride = x_c == 1 && gradient_c == 1 ? 1 : 0;
        VECTORS(j, stride, columns) {
            REALV value = exp(LOAD_REALS(row, j) - maximum) * scale - shared;
            if (at_label >= (long)j && at_label < (long)j + WIDTH)
                ((REAL *)&value)[at_label - (long)j] -= 1 - smoothing;
            STORE_REALS(GRADIENT, known ? value : (REALV)0, to, j);
        }
        SINGLES(j, stride, columns) {
            REAL value = exp(CONVERT(SUM, LOAD(X, row, (long)j * x_c)) - maximum) * scale - shared;
            if ((long)j == at_label)
                value -= 1 - smoothing;
            STORE(GRADIENT, CONVERT(GRADIENT, known ? value : 0), to, (long)j * gradient_c);
        }
    }
}
