/* Convolutions by columns: outputs in vectors of sums, to each of which 4 products are added at once. */
#ifndef SSL_DC_INT8_COLUMNS_H
#define SSL_DC_INT8_COLUMNS_H

#include "int8_codes.h"
#include "int8_layout.h"

/* The weights of a convolution, packed for columns: [block of outputs][tap][4 inputs][output of the block][input of the 4]. */
typedef struct {
    const int8_t *weight;
    const float *scale, *bias; /* padded to whole groups */
    int groups, fours;         /* groups of outputs, fours of inputs */
    int first;                 /* the first of these outputs in y */
} Packed;

typedef struct {
    const int8_t *w;
    const float *scale, *bias;
    const float *residual_scale;
    const int32_t *at; /* bytes from the first tap of a pixel to each four of inputs of each tap */
    int steps, step;   /* how many these are; bytes from the weights of 4 inputs to those of the next 4 */
    float low;
    int64_t y_fine, residual_fine; /* bytes from a code to its fine byte, or 0 */
} Columns;

/* Computes V vectors of outputs of each of P pixels. */
INLINE void columns_tile(const int P, const int V, const uint8_t *const *x, const Columns *c, uint8_t *const *y,
                         const uint8_t *const *residual) {
    ivec acc[24]; /* P * V at most */
#pragma GCC unroll 32
    for (int i = 0; i < P * V; i++) acc[i] = (ivec){0};
    const int8_t *w = c->w;
    for (int i = 0; i < c->steps; i++, w += c->step) {
        const int64_t at = c->at[i];
        Weights wv[4];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) wv[v] = weights_of(*(const ivec *)(w + v * VB));
#pragma GCC unroll 16
        for (int p = 0; p < P; p++) {
            Codes xv = codes_of(four_codes(x[p] + at));
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) acc[p * V + v] = dot(acc[p * V + v], xv, wv[v]);
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; p++) {
        ivec numbers[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) {
            fvec out = floats_of(acc[p * V + v]) * *(const fvec *)(c->scale + v * VL) + *(const fvec *)(c->bias + v * VL);
            if (residual) out += numbers_at(residual[p] + v * VL, c->residual_fine) * *(const fvec *)(c->residual_scale + v * VL);
            numbers[v] = numbers_from(out, c->y_fine, c->low);
        }
        put_numbers(y[p], c->y_fine, V, numbers);
    }
}

typedef void (*columns_fn)(const uint8_t *const *, const Columns *, uint8_t *const *, const uint8_t *const *);
#define COLUMNS_FN(P, V)                                                                            \
    static void columns_##P##_##V(const uint8_t *const *x, const Columns *c, uint8_t *const *y,     \
                                  const uint8_t *const *residual) {                                 \
        if (residual) columns_tile(P, V, x, c, y, residual);                                        \
        else columns_tile(P, V, x, c, y, NULL);                                                     \
    }
/* How many pixels are computed at once, and the functions for each number of vectors of outputs. */
typedef struct {
    int pixels;
    columns_fn with[GROUPS_OF_BLOCK + 1];
} Tile;

#if VB == 64
COLUMNS_FN(6, 4) COLUMNS_FN(6, 3) COLUMNS_FN(6, 2) COLUMNS_FN(6, 1) COLUMNS_FN(8, 3) COLUMNS_FN(12, 2) COLUMNS_FN(12, 1)
COLUMNS_FN(5, 4) COLUMNS_FN(5, 3) COLUMNS_FN(5, 2) COLUMNS_FN(5, 1) COLUMNS_FN(9, 2) COLUMNS_FN(9, 1)
#define NV 4 /* vectors of outputs at once; GROUPS_OF_BLOCK, so that a piece is a block */
static const Tile BY_VECTORS[] = {{0}, {12, {0, columns_12_1}}, {12, {0, 0, columns_12_2}}, {8, {0, 0, 0, columns_8_3}}};
static const Tile OF_SIX = {6, {0, columns_6_1, columns_6_2, columns_6_3, columns_6_4}};
static const Tile OF_FIVE = {5, {0, columns_5_1, columns_5_2, columns_5_3, columns_5_4}};
static const Tile OF_NINE = {9, {0, columns_9_1, columns_9_2}};

/* Small pictures leave fewer places empty in tiles of 5 pixels, or in tiles of 9 pixels with two vectors. */
static int prefers_nine(int pixels) { return padded(pixels, 9) < padded(pixels, 5); }
static const Tile *tile_for(int vectors, int pixels) {
    if (vectors < NV) return BY_VECTORS + vectors;
    return padded(pixels, 5) < padded(pixels, 6) ? &OF_FIVE : &OF_SIX;
}
#else
COLUMNS_FN(4, 2)
#define NV 2
static const Tile OF_FOUR = {4, {0, 0, columns_4_2}}, OF_NINE = {0};
static int prefers_nine(int pixels) { return (void)pixels, 0; }
static const Tile *tile_for(int vectors, int pixels) { return (void)vectors, (void)pixels, &OF_FOUR; }
#endif

static int groups_of_block(int groups, int block) {
    int left = groups - block * GROUPS_OF_BLOCK;
    return left < GROUPS_OF_BLOCK ? left : GROUPS_OF_BLOCK;
}

/* Where the weights have so few bytes, all pieces of a tile are computed before the next tile: the weights stay in the cache, and a pixel
 * is read and written once. */
#define NEAR_BYTES 131072

/* Compute in pieces of V vectors. */
INLINE void columns_in(const int V, const Tile *shape, const Op *op, const State *s, const Packed *packed, int member,
                       int members) {
    const int taps = op->kernel_h * op->kernel_w, vectors = packed->groups * GROUP / VL;
    const int P = shape->pixels, pieces = (vectors + V - 1) / V;
    const int64_t tiles = ((int64_t)op->y.height * op->y.width + P - 1) / P;
    /* One list, and so one loop in columns_tile: the ends of short inner loops would be hard to predict, and cost more than what is
     * computed in them. */
    int32_t at[taps * packed->fours + 1]; /* an array of C has an element, though no input may be kept */
    int steps = 0;
    for (int ky = 0; ky < op->kernel_h; ky++)
        for (int kx = 0; kx < op->kernel_w; kx++)
            for (int four = 0; four < packed->fours; four++) at[steps++] = ky * op->x.line + kx * op->x.stride + 4 * four;
    Columns c = {.at = at, .steps = steps, .low = op->low, .y_fine = op->y.fine, .residual_fine = op->residual.fine};
    const int64_t bytes = (int64_t)taps * packed->fours * 4 * packed->groups * GROUP;
    const int near = bytes <= NEAR_BYTES;
    Part part = part_of(op, tiles, pieces, bytes, member, members);
    const uint8_t *x[MAX_PIXELS], *residual[MAX_PIXELS], *at_piece[MAX_PIXELS];
    uint8_t *y[MAX_PIXELS], *to[MAX_PIXELS];
    int64_t latest = -1;
    for (int64_t item = part.first_item; item < part.last_item; item++) {
        const int64_t tile = part.first_tile + (near ? item / pieces : item % part.tiles);
        const int first = (int)(near ? item % pieces : item / part.tiles) * V, here = vectors - first < V ? vectors - first : V;
        const int block = first * VL / BLOCK, output = first * VL;
        if (tile != latest) {
            pixels_at(op, s, P, (int)tile * P, x, y);
            if (op->has_residual) residuals_at(op, s, P, (int)tile * P, packed->first, residual);
            latest = tile;
        }
        for (int p = 0; p < P; p++) to[p] = y[p] + packed->first + output;
        if (op->has_residual)
            for (int p = 0; p < P; p++) at_piece[p] = residual[p] + output;
        c.step = groups_of_block(packed->groups, block) * 64;
        c.w = packed->weight + (int64_t)block * BLOCK * 4 * taps * packed->fours + (output % BLOCK) * 4;
        c.scale = packed->scale + output, c.bias = packed->bias + output;
        if (op->has_residual) c.residual_scale = op->residual_scale + packed->first + output;
        shape->with[here](x, &c, to, op->has_residual ? at_piece : NULL);
    }
}

static void columns(const Op *op, const State *s, const Packed *packed, int member, int members) {
    const int vectors = packed->groups * GROUP / VL, pixels = op->y.height * op->y.width;
    if (!vectors) return; /* no output is kept */
    if (vectors >= NV && prefers_nine(pixels)) columns_in(2, &OF_NINE, op, s, packed, member, members);
    else columns_in(NV, tile_for(vectors, pixels), op, s, packed, member, members);
}

#endif
