/* Runs a plan (ssl_dc/compiled/plan.py) image by image, and computes only what the masks keep.
 *
 * An activation is laid out as (row, column, channel). It has a border of zeros, as wide as the widest padding of the operations
 * that read it. The channels of a pixel are padded with zeros to whole vectors. A channel-gated activation holds only its kept
 * channels, side by side. There are two ways to convolve; neither copies a weight:
 *
 *   rows     out[p][j] = sum over taps and inputs of x[p + tap][i] * w[kept[j]][tap][i]     (picks outputs: dot products)
 *   columns  out[p][o] = sum over taps and inputs of x[p + tap][j] * w[kept[j]][tap][o]     (picks inputs: scaled vectors)
 *
 * A convolution that picks both outputs and inputs first packs its kept weights, then runs as rows. One that picks outputs and has
 * few inputs packs them too, and runs as columns: its dot products would be too short. A linear layer is a 1x1 convolution of tokens.
 * Vectors are vector types of the compiler (GCC, Clang), as wide as those of the processor.
 */
#define _GNU_SOURCE
#include <stdint.h>

#if defined(__AVX512F__)
#define VL 16
#define NV 4 /* vectors of outputs that the columns kernel holds for each pixel */
#define REGISTERS 32
#elif defined(__AVX__)
#define VL 8
#define NV 2
#define REGISTERS 16
#elif defined(__aarch64__)
#define VL 4
#define NV 4
#define REGISTERS 32
#else
#define VL 4
#define NV 2
#define REGISTERS 16
#endif
#if defined(__AVX512F__)
#define CP 6 /* pixels that the columns kernel computes at once */
#else
#define CP 5
#endif
#define MOST_PIXELS (REGISTERS == 32 ? 2 * CP : 8) /* the same with half of the vectors or less */

typedef float vec __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(VL * 4), aligned(4), may_alias));

typedef float Element, Weight;
#define VECTOR VL
#define BLOCK (VL * NV)
#include "program.h"

#include "activations.h"

/* ---- the rows kernel ---- */

INLINE float relu_one(float v) { return v < 0 ? 0 : v; }

INLINE float sum_of(vec v) {
    float lanes[VL], total = 0;
    memcpy(lanes, &v, sizeof v);
    for (int half = VL / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    total = lanes[0];
    return total;
}

#include "lanes.h"
DEFINE_SUMS(sums_of, vec)
DEFINE_TRANSPOSE(transpose, vec)

/* Keep a vector in a register here: GCC would read it again each time, or move sums from register to register. */
#if defined(__x86_64__)
#define HOLD(v) __asm__ volatile("" : "+v"(v))
#else
#define HOLD(v)
#endif

typedef struct {
    const int32_t *at; /* for each vector of the weights of an output: floats from the first tap of a pixel to what it is multiplied with */
    int steps, activation;
} Rows;

#define MAX_ROWS 6
#define MAX_PIXELS 8

/* Computes R outputs of each of P pixels. x points to the first tap of each pixel, w to R rows of weights. */
INLINE void rows_tile(const int P, const int R, const float *const *x, const float *const *w, const float *bias, const Rows *c,
                      float *const *y) {
    vec acc[MAX_ROWS * MAX_PIXELS];
#pragma GCC unroll 32
    for (int i = 0; i < P * R; i++) acc[i] = (vec){0};
    for (int step = 0; step < c->steps; step++) {
        const int64_t at = c->at[step];
        vec wv[MAX_ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            wv[r] = *(const vec *)(w[r] + step * VL);
            HOLD(wv[r]);
        }
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            vec xv = *(const vec *)(x[p] + at);
            HOLD(xv);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) acc[p * R + r] += xv * wv[r];
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
        for (int r = 0; r < R; r++) y[p][r] = sums[p * R + r];
}

typedef void (*rows_fn)(const float *const *, const float *const *, const float *, const Rows *, float *const *);
#define ROWS_FN(P, R)                                                                                            \
    static void rows_##P##_##R(const float *const *x, const float *const *w, const float *bias, const Rows *c, \
                               float *const *y) {                                                              \
        rows_tile(P, R, x, w, bias, c, y);                                                                     \
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

static void rows(const Op *op, const State *s, int member, int members, const float *packed, int depth) {
    const int taps = op->kernel_h * op->kernel_w;
    int32_t at[taps * depth / VL + 1]; /* an array of C has an element, though no input may be kept */
    const Rows c = {at, taps * depth / VL, op->activation};
    for (int tap = 0, step = 0; tap < taps; tap++)
        for (int i = 0; i < depth; i += VL) at[step++] = tap / op->kernel_w * op->x.line + tap % op->kernel_w * op->x.stride + i;
    const int32_t *kept = kept_of(s, op->out_site);
    int n = count_of(s, op->out_site, op->y.channels), padded = (n + VL - 1) / VL * VL;
    if (!n) return;
    int64_t length = (int64_t)taps * depth;
    int64_t blocks = passes(n);
    int most = (int)((n + blocks - 1) / blocks), P = PIXELS_WITH[most];
    int64_t tiles = ((int64_t)op->y.height * op->y.width + P - 1) / P;
    const float *x[MAX_PIXELS], *w[MAX_ROWS];
    float *y[MAX_PIXELS], bias[MAX_ROWS];
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
        for (int p = 0; p < P; p++) y[p] += first;
        ROWS_OF[most][last - first == most](x, w, bias, &c, y);
        if (last == n)
            for (int p = 0; p < P; p++)
                for (int j = n - first; j < padded - first; j++) y[p][j] = 0;
    }
}

/* ---- the columns kernel ---- */

#define RUN 3 /* taps whose weights lie side by side, so that columns_tile computes them in a row */

/* The taps of the kept inputs of a convolution: first those in runs, then the others. So columns_tile has no nested short loops, whose
 * ends are hard to predict. */
typedef struct {
    int32_t *at;   /* for each tap: floats from the first tap of a pixel to it */
    int32_t *from; /* for each run, and then for each other tap: bytes from the weights of a block of outputs to its weights */
    int runs, others;
    int64_t ahead; /* bytes from the weights of a run to what is prefetched while the run is computed; 0: nothing is */
} Taps;

/* Add the taps `first` to `last` of each input in `kept`, which have weights of `width` outputs, in runs. */
static void add_taps(Taps *t, const Op *op, const int32_t *kept, int inputs, int first, int last, int run, int width) {
    const int taps = op->kernel_h * op->kernel_w;
    for (int j = 0; j < inputs; j++)
        for (int tap = first; tap < last; tap++) {
            if ((tap - first) % run == 0) *t->from++ = ((kept ? kept[j] : j) * taps + tap) * width * (int)sizeof(float);
            *t->at++ = tap / op->kernel_w * op->x.line + tap % op->kernel_w * op->x.stride + j * op->x.plane;
        }
}

/* List the taps of the kept inputs (NULL: all), for a block of `width` outputs. at and from hold as many numbers as there are taps. */
static Taps list_taps(const Op *op, const int32_t *kept, int inputs, int width, int32_t *at, int32_t *from) {
    const int taps = op->kernel_h * op->kernel_w, whole = taps / RUN * RUN;
    Taps t = {at, from, 0, 0, 0};
    add_taps(&t, op, kept, inputs, 0, whole, RUN, width);
    add_taps(&t, op, kept, inputs, whole, taps, 1, width);
    return (Taps){at, from, inputs * (whole / RUN), inputs * (taps - whole), 0};
}

/* Sums are variables, not an array, so that they stay in registers. */
#define EACH_PIXEL(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define START(p)                                            \
    const float *const x##p = x[p < P ? p : 0];             \
    vec a##p##_0 = *(const vec *)bias, a##p##_1, a##p##_2, a##p##_3; \
    if (V > 1) a##p##_1 = *(const vec *)(bias + VL);          \
    if (V > 2) a##p##_2 = *(const vec *)(bias + 2 * VL);      \
    if (V > 3) a##p##_3 = *(const vec *)(bias + 3 * VL);
#define ADD_TO(sum, weights) \
    do {                     \
        sum += xs * weights; \
        HOLD(sum);           \
    } while (0)
#define ADD_PIXEL(p)                       \
    if (p < P) {                           \
        const float xs = x##p[tap];        \
        ADD_TO(a##p##_0, w0);              \
        if (V > 1) ADD_TO(a##p##_1, w1);   \
        if (V > 2) ADD_TO(a##p##_2, w2);   \
        if (V > 3) ADD_TO(a##p##_3, w3);   \
    }
#define WEIGHTS(v)                               \
    vec w##v;                                    \
    if (v < V) {                                 \
        w##v = *(const vec *)(weights + v * VL); \
        HOLD(w##v);                              \
    }
#define ADD_TAP(at, from)                                             \
    do {                                                              \
        const int64_t tap = (at);                                     \
        const float *weights = (from);                                \
        WEIGHTS(0) WEIGHTS(1) WEIGHTS(2) WEIGHTS(3) EACH_PIXEL(ADD_PIXEL) \
    } while (0)
#define ADD_RUN(FETCH)                                                         \
    do {                                                                       \
        const float *of = (const float *)((const char *)w + *from);            \
        FETCH;                                                                 \
        _Pragma("GCC unroll 4") for (int i = 0; i < RUN; i++) ADD_TAP(at[i], of + i * V * VL); \
    } while (0)
#define FINISH_ONE(sum, p, v)                                   \
    do {                                                        \
        vec out = sum;                                          \
        if (residual) out += *(const vec *)(residual[p] + v * VL); \
        if (relu) out = relu_vec(out);                          \
        *(vec *)(y[p] + v * VL) = out;                          \
    } while (0)
#define FINISH(p)                              \
    if (p < P) {                               \
        FINISH_ONE(a##p##_0, p, 0);            \
        if (V > 1) FINISH_ONE(a##p##_1, p, 1); \
        if (V > 2) FINISH_ONE(a##p##_2, p, 2); \
        if (V > 3) FINISH_ONE(a##p##_3, p, 3); \
    }

/* Prefetch a run of weights of V vectors. */
INLINE void prefetch_run(const char *from, const int V) {
#pragma GCC unroll 16
    for (int byte = 0; byte < RUN * V * VL * (int)sizeof(float); byte += 64) __builtin_prefetch(from + byte, 0, 2);
}

/* Computes V vectors of outputs of each of P pixels. w: the weights of the block of outputs: [input][tap][V vectors]. */
INLINE void columns_tile(const int P, const int V, const float *const *x, const Taps *t, const float *w, const float *bias,
                         float *const *y, const float *const *residual, int relu) {
    EACH_PIXEL(START)
    const int32_t *at = t->at, *from = t->from, *end = from + t->runs;
    if (t->ahead)
        for (; from < end; at += RUN, from++) ADD_RUN(prefetch_run((const char *)of + t->ahead, V));
    for (; from < end; at += RUN, from++) ADD_RUN((void)0);
    for (end += t->others; from < end; at++, from++) ADD_TAP(*at, (const float *)((const char *)w + *from));
    EACH_PIXEL(FINISH)
}

typedef void (*columns_fn)(const float *const *, const Taps *, const float *, const float *, float *const *, const float *const *,
                           int);
#define COLUMNS_FN(P, V)                                                                                                  \
    static void columns_##P##_##V(const float *const *x, const Taps *t, const float *w, const float *bias, float *const *y, \
                                  const float *const *residual, int relu) {                                               \
        columns_tile(P, V, x, t, w, bias, y, residual, relu);                                                             \
    }
#if NV == 4
#define COLUMNS_FNS(P) COLUMNS_FN(P, 1) COLUMNS_FN(P, 2) COLUMNS_FN(P, 3) COLUMNS_FN(P, 4)
#define COLUMNS_OF_PIXELS(P) {0, columns_##P##_1, columns_##P##_2, columns_##P##_3, columns_##P##_4}
#else
#define COLUMNS_FNS(P) COLUMNS_FN(P, 1) COLUMNS_FN(P, 2)
#define COLUMNS_OF_PIXELS(P) {0, columns_##P##_1, columns_##P##_2}
#endif
COLUMNS_FNS(1) COLUMNS_FNS(2) COLUMNS_FNS(3) COLUMNS_FNS(4) COLUMNS_FNS(5)
#if CP == 6
COLUMNS_FNS(6) COLUMNS_FN(12, 1) COLUMNS_FN(12, 2)
#elif NV == 4
COLUMNS_FN(10, 1) COLUMNS_FN(10, 2)
#else
COLUMNS_FN(8, 1)
#endif
/* The functions by the number of pixels and of vectors; first those for as many pixels as fill the registers where vectors are few. */
static const columns_fn COLUMNS_OF[CP + 1][NV + 1] = {
#if CP == 6
    {0, columns_12_1, columns_12_2},
#elif NV == 4
    {0, columns_10_1, columns_10_2},
#else
    {0, columns_8_1},
#endif
    COLUMNS_OF_PIXELS(1), COLUMNS_OF_PIXELS(2), COLUMNS_OF_PIXELS(3), COLUMNS_OF_PIXELS(4), COLUMNS_OF_PIXELS(5),
#if CP == 6
    COLUMNS_OF_PIXELS(6)
#endif
};

/* How many pixels are computed at once if no block has more vectors. */
static int pixels_at_once(int vectors) { return 2 * vectors <= NV ? MOST_PIXELS : CP; }

/* The function that computes this many pixels, or, with more than CP, as many as pixels_at_once. */
static columns_fn columns_of(int pixels, int vectors) { return COLUMNS_OF[pixels > CP ? 0 : pixels][vectors]; }

/* The weights of a convolution that computes n outputs, as columns. */
typedef struct {
    const float *weight, *bias;
    int outputs;
} Block;

/* Where so few weights are used, all blocks of a tile are computed before the next tile: the weights stay in the cache, and a pixel is
 * read and written once. */
#define NEAR_WEIGHTS 32768
static void columns(const Op *op, const State *s, int member, int members, Block of) {
    const int32_t *kept = kept_of(s, op->in_site);
    const int inputs = count_of(s, op->in_site, op->x.channels), taps = op->kernel_h * op->kernel_w;
    int32_t at[inputs * taps + 1], from[inputs * taps + 1]; /* an array of C has an element, though no input may be kept */
    Taps list = {0};
    int vectors = (of.outputs + VL - 1) / VL, blocks = (vectors + NV - 1) / NV, pixels = op->y.height * op->y.width;
    int64_t length = (int64_t)op->x.channels * taps;
    int relu = op->activation == RELU, most = pixels_at_once(vectors), listed = 0;
    int64_t tiles = ((int64_t)pixels + most - 1) / most;
    Part part = part_of(op, tiles, blocks, (int64_t)inputs * taps * vectors * VL, member, members);
    const int near = vectors % NV == 0 && (int64_t)inputs * taps * vectors * VL <= NEAR_WEIGHTS;
    const float *x[MOST_PIXELS], *residual[MOST_PIXELS], *at_block[MOST_PIXELS];
    float *y[MOST_PIXELS], *to[MOST_PIXELS];
    int64_t latest = -1;
    for (int64_t item = part.first_item; item < part.last_item; item++) {
        const int64_t tile = part.first_tile + (near ? item / blocks : item % part.tiles);
        const int first = (int)(near ? item % blocks : item / part.tiles) * NV, here = vectors - first < NV ? vectors - first : NV;
        const int pixel = (int)tile * most, left = pixels - pixel < most ? pixels - pixel : most;
        if (here != listed) list = list_taps(op, kept, inputs, here * VL, at, from), listed = here;
        if (tile != latest) {
            pixels_at(op, s, most, pixel, x, y);
            if (op->has_residual) residuals_at(op, s, most, pixel, 0, residual);
            latest = tile;
        }
        for (int p = 0; p < most; p++) to[p] = y[p] + first * VL;
        if (op->has_residual)
            for (int p = 0; p < most; p++) at_block[p] = residual[p] + first * VL;
        /* the kept weights of the next block are scattered: prefetch them while the first tile of this one is computed */
        list.ahead = kept && !near && item % part.tiles == 0 ? NV * VL * length * (int64_t)sizeof(float) : 0;
        columns_of(left, here)(x, &list, of.weight + first * VL * length, of.bias + first * VL, to,
                               op->has_residual ? at_block : NULL, relu);
        if (op->activation > RELU)
            for (int p = 0; p < left; p++) ACTIVATION_OF[op->activation](to[p], to[p], here * VL);
    }
}

/* Pack the weights of the n kept outputs, which lie as rows, as columns, and their biases. The rest of the last vector are zeros. */
static void pack_columns(const Op *op, const int32_t *kept, int n, int member, int members, float *weight, float *bias) {
    const int taps = op->kernel_h * op->kernel_w, inputs = op->x.channels, depth = (inputs + VL - 1) / VL * VL;
    const int vectors = (n + VL - 1) / VL;
    int64_t from, to;
    share((int64_t)vectors * taps, member, members, &from, &to);
    for (int64_t item = from; item < to; item++) {
        const int v = (int)item / taps, tap = (int)item % taps, first = v / NV * NV, width = vectors - first < NV ? vectors - first : NV;
        float *w = weight + ((int64_t)first * inputs * taps + (int64_t)tap * width + v - first) * VL;
        const float *row[VL];
        for (int lane = 0; lane < VL; lane++) {
            const int j = v * VL + lane;
            row[lane] = j < n ? op->weight + ((int64_t)kept[j] * taps + tap) * depth : NULL;
            bias[j] = j < n ? op->bias[kept[j]] : 0;
        }
        for (int i = 0; i < inputs; i += VL) {
            vec block[VL];
            for (int lane = 0; lane < VL; lane++) block[lane] = row[lane] ? *(const vec *)(row[lane] + i) : (vec){0};
            transpose(block);
            for (int k = 0; k < VL && i + k < inputs; k++) *(vec *)(w + (int64_t)(i + k) * taps * width * VL) = block[k];
        }
    }
}

/* Whether columns are faster than rows for the n kept outputs of a convolution, though their weights must be packed. Counted in products
 * of vectors, as measured with AVX2: a tap of a tile of columns takes a tenth longer than its products, a step of rows a quarter;
 * the sum over the lanes at the end of each dot product takes SUM, to pack a weight PACK. */
#define SUM 20
#define PACK 1
static int faster_as_columns(const Op *op, int n) {
    const int64_t length = (int64_t)op->x.channels * op->kernel_h * op->kernel_w, vectors = (n + VL - 1) / VL;
    const int64_t pixels = (int64_t)op->y.height * op->y.width;
    return (vectors * length * 11 / 10 - n * (length / VL * 5 / 4 + SUM)) * pixels + PACK * n * length < 0;
}

static void columns_of_outputs(const Op *op, State *s, int member, Team *team) {
    const int n = s->count[op->out_site];
    if (!faster_as_columns(op, n)) {
        rows(op, s, member, team->members, NULL, (op->x.channels + VL - 1) / VL * VL);
        return;
    }
    float *weight = s->scratch, *bias = weight + (int64_t)((n + VL - 1) / VL * VL) * op->x.channels * op->kernel_h * op->kernel_w;
    pack_columns(op, kept_of(s, op->out_site), n, member, team->members, weight, bias);
    barrier(team);
    columns(op, s, member, team->members, (Block){weight, bias, n});
}

/* ---- the other operations ---- */

#include "depthwise.h"
#include "channelwise.h"
#include "attention.h"
#include "grouped.h"
#include "small_groups.h"

/* Pack the kept weights of a convolution that picks both: [kept output][tap][kept input, padded to whole vectors].
 * Returns the padded number of inputs. */
static int pack(const Op *op, const State *s, int member, int members, float *packed) {
    const int32_t *out = kept_of(s, op->out_site), *in = kept_of(s, op->in_site);
    int n = s->count[op->out_site], inputs = s->count[op->in_site];
    int depth = (inputs + VL - 1) / VL * VL, taps = op->kernel_h * op->kernel_w;
    int full = (op->x.channels + VL - 1) / VL * VL;
    int64_t from, to;
    share(n, member, members, &from, &to);
    for (int64_t j = from; j < to; j++)
        for (int tap = 0; tap < taps; tap++) {
            const float *w = op->weight + ((int64_t)out[j] * taps + tap) * full;
            float *to_row = packed + (j * taps + tap) * depth;
            for (int i = 0; i < inputs; i++) to_row[i] = w[in[i]];
            for (int i = inputs; i < depth; i++) to_row[i] = 0;
        }
    return depth;
}

static void maxpool(const Op *op, const State *s, int member, int members) {
    int64_t from, to;
    share(op->y.height, member, members, &from, &to);
    for (int row = (int)from; row < to; row++)
        for (int column = 0; column < op->y.width; column++) {
            const Window window = window_at(op, s, row, column);
            const float *x = window.x;
            float *y = window.y;
            for (int i = 0; i < op->y.stride; i += VL) {
                vec best = *(const vec *)(x + i);
                for (int r = 0; r < window.rows; r++)
                    for (int c = 0; c < window.columns; c++) {
                        vec v = *(const vec *)(x + (int64_t)r * op->x.line + (int64_t)c * op->x.stride + i);
                        ivec kept = ~(v > best) & (v == v); /* a NaN wins, as in torch */
                        best = (vec)((kept & (ivec)best) | (~kept & (ivec)v));
                    }
                *(vec *)(y + i) = best;
            }
        }
}

/* Sum each channel over the pixels. The rows are always split into the same PARTS, so that a gate decides the same with any number
 * of threads. */
static void sums(const Op *op, const State *s, int member, int members) {
    const int channels = present(op, s);
    int64_t from, to;
    share(PARTS, member, members, &from, &to);
    for (int64_t part = from; part < to; part++) {
        float *total = s->scratch + part * op->x.stride;
        memset(total, 0, sizeof(float) * channels);
        int64_t first, last;
        share(op->x.height, (int)part, PARTS, &first, &last);
        for (int64_t row = first; row < last; row++) {
            const float *x = s->arena + op->x.offset + row * op->x.line;
            for (int i = 0; i < channels; i += VL * 4) {
                int vectors = (channels - i) / VL < 4 ? (channels - i) / VL : 4;
                vec acc[4] = {{0}, {0}, {0}, {0}};
                for (int column = 0; column < op->x.width; column++)
                    for (int v = 0; v < vectors; v++) acc[v] += *(const vec *)(x + (int64_t)column * op->x.stride + i + v * VL);
                for (int v = 0; v < vectors; v++) *(vec *)(total + i + v * VL) += acc[v];
            }
        }
    }
}

static void means(const Op *op, const State *s, float *mean) {
    float share_of_one = 1.0f / ((float)op->x.height * (float)op->x.width);
    for (int i = 0, channels = present(op, s); i < channels; i += VL) {
        vec total = *(const vec *)(s->scratch + i);
        for (int part = 1; part < PARTS; part++) total += *(const vec *)(s->scratch + (int64_t)part * op->x.stride + i);
        *(vec *)(mean + i) = total * share_of_one;
    }
}

static float dot(const float *a, const float *b, int n) { /* n: a multiple of VL */
    vec acc[2] = {{0}, {0}};
    int i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        acc[0] += *(const vec *)(a + i) * *(const vec *)(b + i);
        acc[1] += *(const vec *)(a + i + VL) * *(const vec *)(b + i + VL);
    }
    for (; i < n; i += VL) acc[0] += *(const vec *)(a + i) * *(const vec *)(b + i);
    return sum_of(acc[0] + acc[1]);
}

/* Decide the mask of a gate: an entry is open where bias2 + weight2 . relu(bias + weight . mean) >= 0. */
static void decide(const Op *op, State *s) {
    float *mean = s->scratch + (int64_t)PARTS * op->x.stride, *hidden = mean + op->x.stride;
    int padded = (op->hidden + VL - 1) / VL * VL, inputs = (op->x.channels + VL - 1) / VL * VL;
    means(op, s, mean);
    for (int h = 0; h < op->hidden; h++)
        hidden[h] = relu_one(op->bias[h] + dot(op->weight + (int64_t)h * inputs, mean, inputs));
    for (int h = op->hidden; h < padded; h++) hidden[h] = 0;
    const Site *site = s->sites + op->site;
    int count = 0;
    for (int c = 0; c < site->channels; c++)
        if (op->bias2[c] + dot(op->weight2 + (int64_t)c * padded, hidden, padded) >= 0) s->kept[site->first + count++] = c;
    s->count[op->site] = count;
    widen(s, op->site);
}

static void execute(const Op *op, State *s, int member, Team *team) {
    int members = team->members;
    switch (op->kind) {
    case ROWS:
        columns_of_outputs(op, s, member, team);
        break;
    case COLUMNS:
        columns(op, s, member, members, (Block){op->weight, op->bias, op->y.channels});
        break;
    case DEPTHWISE:
        depthwise(op, s, member, team);
        break;
    case PACKED: {
        int depth = pack(op, s, member, members, s->scratch);
        barrier(team);
        rows(op, s, member, members, s->scratch, depth);
        break;
    }
    case MAXPOOL:
        maxpool(op, s, member, members);
        break;
    case MEAN:
        sums(op, s, member, members);
        barrier(team);
        if (!member) means(op, s, s->arena + op->y.offset);
        break;
    case GATE:
        sums(op, s, member, members);
        barrier(team);
        if (!member) decide(op, s);
        break;
    case ACTIVATE:
        activate(op, s, member, members);
        break;
    case SMALL_GROUPS:
        small_groups(op, s, member, team);
        break;
    case GROUPED:
        grouped(op, s, member, members);
        break;
    case ADD:
        add(op, s, member, members);
        break;
    case MULTIPLY:
        multiply(op, s, member, members);
        break;
    case LAYER_NORM:
        layer_norm(op, s, member, members);
        break;
    case ATTENTION:
        attention(op, s, member, members);
        break;
    }
}

static void put_image(const Program *program, State *s, const float *image, int member, int members) {
    const Activation *t = &program->input;
    int64_t from, to;
    share(t->height, member, members, &from, &to);
    for (int channel = 0; channel < t->channels; channel++)
        for (int64_t row = from; row < to; row++) {
            const float *x = image + ((int64_t)channel * t->height + row) * t->width;
            float *y = s->arena + t->offset + (int64_t)channel * t->plane + row * t->line;
            if (t->stride == 1) memcpy(y, x, sizeof(float) * t->width);
            else
                for (int column = 0; column < t->width; column++) y[(int64_t)column * t->stride] = x[column];
        }
}
