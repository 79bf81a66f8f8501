/* Convolutions by rows: the kept outputs as dot products of their weights with what lies side by side in a row of taps. */
#ifndef SSL_DC_INT8_ROWS_H
#define SSL_DC_INT8_ROWS_H

#include "int8_codes.h"
#include "int8_layout.h"
#include "lanes.h"

DEFINE_SUMS(sums_of, ivec)

typedef struct {
    int kernel_h, line, run; /* run: bytes of the weights of a row of taps, which lie side by side, as its codes do in x */
    float low;
} Rows;

#define MAX_ROWS 4
#define MAX_SUMS (27 + VL)

/* Computes R outputs of each of P pixels. x points to the first tap of each pixel, w to R rows of weights. The codes past the end of
 * a row of taps are read, too; their weights are zero. scale and bias: for each pixel those of the R outputs. */
INLINE void rows_tile(const int P, const int R, const uint8_t *const *x, const int8_t *const *w, const float *scale,
                      const float *bias, const Rows *c, uint8_t *const *y) {
    ivec acc[MAX_SUMS];
#pragma GCC unroll 32
    for (int i = 0; i < P * R; i++) acc[i] = (ivec){0};
    /* one loop over rows of taps and what lies side by side in them, as for columns */
    const int64_t all = (int64_t)c->kernel_h * c->run, to_next_row = c->line - c->run;
    int64_t tap = 0;
    int in_row = 0;
    for (int64_t at = 0; at < all; at += VB) {
        Weights wv[MAX_ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) wv[r] = weights_of(*(const ivec *)(w[r] + at));
#pragma GCC unroll 16
        for (int p = 0; p < P; p++) {
            Codes xv = codes_of(*(const ivec *)(x[p] + tap));
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) acc[p * R + r] = dot(acc[p * R + r], xv, wv[r]);
        }
        const int64_t next_row = -((in_row += VB) == c->run);
        in_row &= ~next_row, tap += VB + (next_row & to_next_row);
    }
    uint8_t codes[MAX_SUMS];
#pragma GCC unroll 8
    for (int first = 0; first < P * R; first += VL) {
        ivec group[VL];
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) group[i] = first + LANE[i] < P * R ? acc[first + LANE[i]] : (ivec){0};
        fvec v = floats_of(sums_of(group)) * *(const fvec *)(scale + first) + *(const fvec *)(bias + first);
        put_codes(codes + first, codes_from(v, c->low));
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; p++) memcpy(y[p], codes + p * R, R);
}

typedef void (*rows_fn)(const uint8_t *const *, const int8_t *const *, const float *, const float *, const Rows *,
                        uint8_t *const *);
#define ROWS_FN(P, R)                                                                                                   \
    static void rows_##P##_##R(const uint8_t *const *x, const int8_t *const *w, const float *scale, const float *bias, \
                               const Rows *c, uint8_t *const *y) {                                                      \
        rows_tile(P, R, x, w, scale, bias, c, y);                                                                       \
    }
/* How many pixels are computed at once with a number of rows, so that sums and operands stay in registers; the function for one row
 * less, then the one for that number of rows. */
typedef struct {
    int pixels;
    rows_fn with[2];
} RowsTile;

#if VB == 64
ROWS_FN(6, 4) ROWS_FN(6, 3) ROWS_FN(8, 3) ROWS_FN(8, 2) ROWS_FN(12, 2) ROWS_FN(12, 1) ROWS_FN(9, 3) ROWS_FN(9, 2)
static const RowsTile WITH_ROWS[] = {
    {0}, {12, {0, rows_12_1}}, {12, {rows_12_1, rows_12_2}}, {8, {rows_8_2, rows_8_3}}, {6, {rows_6_3, rows_6_4}}};
static const RowsTile OF_NINE_WITH_3 = {9, {rows_9_2, rows_9_3}};

/* Small pictures may leave fewer places empty in tiles of 9 pixels with 3 rows than in tiles of 6 pixels with 4 rows. */
static int rows_at_once(int pixels) { return padded(pixels, 9) < padded(pixels, 6) ? 3 : 4; }
static const RowsTile *tile_with(int rows, int pixels) {
    return rows == 3 && padded(pixels, 9) < padded(pixels, 6) ? &OF_NINE_WITH_3 : WITH_ROWS + rows;
}
#else
ROWS_FN(4, 2) ROWS_FN(4, 1)
static const RowsTile WITH_ROWS[] = {{0}, {4, {0, rows_4_1}}, {4, {rows_4_1, rows_4_2}}};
static int rows_at_once(int pixels) { return (void)pixels, 2; }
static const RowsTile *tile_with(int rows, int pixels) { return (void)pixels, WITH_ROWS + rows; }
#endif

static void rows(const Op *op, const State *s, int member, int members) {
    const int run = padded(op->kernel_w * op->x.stride, ROW);
    const Rows c = {op->kernel_h, op->x.line, run, op->low};
    const int32_t *kept = kept_of(s, op->out_site);
    int n = count_of(s, op->out_site, op->y.channels);
    if (!n) return;
    const int pixels = op->y.height * op->y.width, at_once = rows_at_once(pixels);
    int64_t length = (int64_t)op->kernel_h * run, blocks = (n + at_once - 1) / at_once;
    const int most = (int)((n + blocks - 1) / blocks);
    const RowsTile *shape = tile_with(most, pixels);
    const int P = shape->pixels;
    int64_t tiles = (pixels + P - 1) / P;
    const uint8_t *x[MAX_PIXELS];
    const int8_t *w[MAX_ROWS];
    uint8_t *y[MAX_PIXELS];
    float scale[MAX_SUMS] = {0}, bias[MAX_SUMS] = {0};
    Part part = part_of(op, tiles, blocks, length * n, member, members);
    int64_t block = -1;
    int first = 0, last = 0;
    for (int64_t item = part.first_item; item < part.last_item; item++) {
        int64_t tile = part.first_tile + item % part.tiles;
        pixels_at(op, s, P, (int)tile * P, x, y);
        if (item / part.tiles != block) {
            block = item / part.tiles;
            first = (int)(n * block / blocks), last = (int)(n * (block + 1) / blocks);
            int here = last - first;
            for (int r = 0; r < here; r++) {
                int channel = kept ? kept[first + r] : first + r;
                w[r] = op->weight + channel * length;
                for (int p = 0; p < P; p++) scale[p * here + r] = op->scale[channel], bias[p * here + r] = op->bias[channel];
            }
        }
        if (kept) /* the weights of the next block are scattered: prefetch them while this block is used */
            for (int j = last; j < n && j < last + most; j++) fetch(op->weight + kept[j] * length, length, tile, tiles);
        for (int p = 0; p < P; p++) y[p] += first;
        shape->with[last - first == most](x, w, scale, bias, &c, y);
    }
}

#endif
