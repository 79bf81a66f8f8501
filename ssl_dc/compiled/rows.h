/* Convolutions as rows: dot products of the pixels with the weights of the kept outputs, [output][tap][input]. */
#ifndef SSL_DC_ROWS_H
#define SSL_DC_ROWS_H

typedef struct {
    const int32_t *at; /* for each vector of the weights of an output: elements from the first tap of a pixel to what it is multiplied with */
    int steps, activation;
} Rows;

#define MAX_ROWS 6
#define MAX_PIXELS 8

/* Computes R outputs of each of P pixels. x points to the first tap of each pixel, w to R rows of weights. */
INLINE void rows_tile(const int P, const int R, const Element *const *x, const Weight *const *w, const float *bias, const Rows *c,
                      Element *const *y) {
    vec acc[MAX_ROWS * MAX_PIXELS];
#pragma GCC unroll 32
    for (int i = 0; i < P * R; i++) acc[i] = (vec){0};
    for (int step = 0; step < c->steps; step++) {
        const int64_t at = c->at[step];
        Operand wv[MAX_ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            wv[r] = operand_at(w[r] + step * VECTOR);
            HOLD_OPERAND(wv[r]);
        }
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            Operand xv = operand_at(x[p] + at);
            HOLD_OPERAND(xv);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) ADD_PRODUCTS(acc[p * R + r], xv, wv[r]);
        }
    }
    float sums[MAX_ROWS * MAX_PIXELS + VL];
#pragma GCC unroll 8
    for (int first = 0; first < P * R; first += VL) {
        vec group[VL];
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) group[i] = first + LANE[i] < P * R ? acc[first + LANE[i]] : (vec){0};
        *(vec *)(sums + first) = sums_of(group);
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) sums[p * R + r] += bias[r];
    if (c->activation) ACTIVATION_OF[c->activation](sums, sums, P * R);
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) y[p][r] = element_of(sums[p * R + r]);
}

typedef void (*rows_fn)(const Element *const *, const Weight *const *, const float *, const Rows *, Element *const *);
#define ROWS_FN(P, R)                                                                                                \
    static void rows_##P##_##R(const Element *const *x, const Weight *const *w, const float *bias, const Rows *c, \
                               Element *const *y) {                                                               \
        rows_tile(P, R, x, w, bias, c, y);                                                                         \
    }
/* How many pixels are computed at once with a number of rows, so that sums and operands stay in registers. ROWS_OF holds the
 * function for one row less, then the one for that number of rows. */
#if REGISTERS == 32
#define ROWS_AT_ONCE 5
ROWS_FN(4, 6) ROWS_FN(4, 5) ROWS_FN(5, 5) ROWS_FN(5, 4) ROWS_FN(6, 4) ROWS_FN(6, 3) ROWS_FN(8, 3) ROWS_FN(8, 2) ROWS_FN(8, 1)
static const int PIXELS_WITH[] = {0, 8, 8, 8, 6, 5, 4};
static const rows_fn ROWS_OF[][2] = {{0, 0},
                                     {0, rows_8_1},
                                     {rows_8_1, rows_8_2},
                                     {rows_8_2, rows_8_3},
                                     {rows_6_3, rows_6_4},
                                     {rows_5_4, rows_5_5},
                                     {rows_4_5, rows_4_6}};
#elif SPLIT_OPERANDS
#define ROWS_AT_ONCE 2
ROWS_FN(4, 2) ROWS_FN(4, 1)
static const int PIXELS_WITH[] = {0, 4, 4};
static const rows_fn ROWS_OF[][2] = {{0, 0}, {0, rows_4_1}, {rows_4_1, rows_4_2}};
#else
#define ROWS_AT_ONCE 3
ROWS_FN(3, 3) ROWS_FN(3, 2) ROWS_FN(4, 2) ROWS_FN(4, 1)
static const int PIXELS_WITH[] = {0, 4, 4, 3};
static const rows_fn ROWS_OF[][2] = {{0, 0}, {0, rows_4_1}, {rows_4_1, rows_4_2}, {rows_3_2, rows_3_3}};
#endif

/* How many passes over the pixels n rows take. */
static int passes(int n) {
#if REGISTERS == 32
    if (n == 6) return 1; /* one pass with fewer pixels at once is faster than two */
#endif
    return (n + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
}

/* Compute the kept outputs but the first `skipped`. packed: weights of `depth` inputs, a multiple of VECTOR, with all outputs; NULL: the weights of op. */
static void rows(const Op *op, const State *s, int member, int members, const Weight *packed, int depth, int skipped) {
    const int taps = op->kernel_h * op->kernel_w;
    int32_t at[taps * depth / VECTOR + 1]; /* an array of C has an element, though no input may be kept */
    const Rows c = {at, taps * depth / VECTOR, op->activation};
    for (int tap = 0, step = 0; tap < taps; tap++)
        for (int i = 0; i < depth; i += VECTOR) at[step++] = tap / op->kernel_w * op->x.line + tap % op->kernel_w * op->x.stride + i;
    const int32_t *kept = kept_of(s, op->out_site);
    int n = count_of(s, op->out_site, op->y.channels) - skipped, padded = (skipped + n + VECTOR - 1) / VECTOR * VECTOR - skipped;
    if (!n) return;
    if (kept) kept += skipped;
    int64_t length = (int64_t)taps * depth;
    int64_t blocks = passes(n);
    int most = (int)((n + blocks - 1) / blocks), P = PIXELS_WITH[most];
    int64_t tiles = ((int64_t)op->y.height * op->y.width + P - 1) / P;
    const Element *x[MAX_PIXELS];
    const Weight *w[MAX_ROWS];
    Element *y[MAX_PIXELS];
    float bias[MAX_ROWS];
    Part part = part_of(op, tiles, blocks, length * n, member, members);
    int64_t block = -1;
    int first = 0, last = 0;
    for (int64_t item = part.first_item; item < part.last_item; item++) {
        int64_t tile = part.first_tile + item % part.tiles;
        pixels_at(op, s, P, (int)tile * P, x, y);
        if (item / part.tiles != block) {
            block = item / part.tiles;
            first = (int)(n * block / blocks), last = (int)(n * (block + 1) / blocks);
            for (int j = first; j < last; j++) {
                int channel = kept ? kept[j] : j;
                w[j - first] = packed ? packed + j * length : op->weight + channel * length;
                bias[j - first] = op->bias[channel];
            }
        }
        if (kept && !packed) /* the weights of the next block are scattered: prefetch them while this block is used */
            for (int j = last; j < n && j < last + most; j++) fetch(op->weight + kept[j] * length, length, tile, tiles);
        for (int p = 0; p < P; p++) y[p] += skipped + first;
        ROWS_OF[most][last - first == most](x, w, bias, &c, y);
        if (last == n)
            for (int p = 0; p < P; p++)
                for (int j = n - first; j < padded - first; j++) y[p][j] = 0;
    }
}

#endif
