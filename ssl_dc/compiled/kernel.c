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
#define CP 6 /* pixels that the columns kernel computes at once */
#define REGISTERS 32
#elif defined(__AVX__)
#define VL 8
#define NV 2
#define CP 5
#define REGISTERS 16
#elif defined(__aarch64__)
#define VL 4
#define NV 4
#define CP 5
#define REGISTERS 32
#else
#define VL 4
#define NV 2
#define CP 4
#define REGISTERS 16
#endif

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

typedef struct {
    int kernel_h, kernel_w, line, stride, depth, activation; /* depth: number of inputs, padded to whole vectors */
} Rows;

#define MAX_ROWS 6
#define MAX_PIXELS 8

/* Computes R outputs of each of P pixels. x points to the first tap of each pixel, w to R rows of weights. */
INLINE void rows_tile(const int P, const int R, const float *const *x, const float *const *w, const float *bias, const Rows *c,
                      float *const *y) {
    vec acc[MAX_ROWS * MAX_PIXELS];
#pragma GCC unroll 32
    for (int i = 0; i < P * R; i++) acc[i] = (vec){0};
    int64_t at = 0;
    for (int ky = 0; ky < c->kernel_h; ky++)
        for (int kx = 0; kx < c->kernel_w; kx++) {
            int64_t tap = (int64_t)ky * c->line + (int64_t)kx * c->stride;
            for (int i = 0; i < c->depth; i += VL, at += VL) {
                vec wv[MAX_ROWS];
#pragma GCC unroll 8
                for (int r = 0; r < R; r++) wv[r] = *(const vec *)(w[r] + at);
#pragma GCC unroll 8
                for (int p = 0; p < P; p++) {
                    vec xv = *(const vec *)(x[p] + tap + i);
#pragma GCC unroll 8
                    for (int r = 0; r < R; r++) acc[p * R + r] += xv * wv[r];
                }
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
    Rows c = {op->kernel_h, op->kernel_w, op->x.line, op->x.stride, depth, op->activation};
    const int32_t *kept = kept_of(s, op->out_site);
    int n = count_of(s, op->out_site, op->y.channels), padded = (n + VL - 1) / VL * VL;
    if (!n) return;
    int64_t length = (int64_t)op->kernel_h * op->kernel_w * depth;
    if (depth == op->x.stride) c.depth *= c.kernel_w, c.kernel_w = 1; /* the taps of a row are side by side, in x and in w */
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

typedef struct {
    const float *w;      /* the weights of one block of outputs: [input][tap][V vectors] */
    const int32_t *at;   /* for each tap of each kept input: floats from the first tap of a pixel to it */
    const int32_t *from; /* for each of them: which it is among the taps of all inputs */
    int steps;           /* how many they are */
    int64_t step;        /* floats from the weights of a tap to those of the next */
} Columns;

#define LINE 16 /* floats of a line of the cache */
#define OF_WAY 4096 /* bytes at whose multiples lines compete for the same set of the first level of the cache */
#define WAYS 8      /* lines that a set holds */

/* Whether the lines that hold an input of the pixels around a tile displace each other: a pixel of 512 inputs takes 2 KB, so that
 * these lines lie in two sets. */
static int crowded(const Op *op) {
    const int bytes = op->x.stride * (int)sizeof(float), alike = bytes & -bytes;
    const int sets = alike < OF_WAY ? OF_WAY / alike : 1;
    return op->kernel_h * (op->kernel_w + (CP - 1) * op->step) > WAYS * sets;
}

/* List the taps of the kept inputs (NULL: all), and return how many they are. So columns_tile has one loop: the ends of nested short
 * ones are hard to predict. On a processor with AVX2 they took a fifth of the time at 224 px (docs/inference.md).
 *
 * The taps of an input are side by side, as their weights are. In a crowded cache a tap is listed for all inputs of a line before
 * the next tap, so that a line is read once for all of them: 0.7 of the time for 512 inputs at 7 x 7 pixels, with AVX2. */
static int list_taps(const Op *op, const int32_t *kept, int inputs, int32_t *at, int32_t *from) {
    const int taps = op->kernel_h * op->kernel_w, together = crowded(op) ? LINE : 1;
    int steps = 0;
    for (int first = 0; first < inputs; first += together) {
        const int last = first + together < inputs ? first + together : inputs;
        for (int ky = 0; ky < op->kernel_h; ky++)
            for (int kx = 0; kx < op->kernel_w; kx++)
                for (int j = first; j < last; j++, steps++) {
                    at[steps] = ky * op->x.line + kx * op->x.stride + j * op->x.plane;
                    from[steps] = (kept ? kept[j] : j) * taps + ky * op->kernel_w + kx;
                }
    }
    return steps;
}

/* Computes V vectors of outputs of each of P pixels. */
INLINE void columns_tile(const int P, const int V, const float *const *x, const Columns *c, const float *bias, float *const *y,
                         const float *const *residual, int relu) {
    vec acc[2 * CP][NV];
    for (int v = 0; v < V; v++) {
        vec b = *(const vec *)(bias + v * VL);
        for (int p = 0; p < P; p++) acc[p][v] = b;
    }
    for (int i = 0; i < c->steps; i++) {
        const int64_t at = c->at[i];
        const float *w = c->w + c->from[i] * c->step;
        vec wv[NV];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) wv[v] = *(const vec *)(w + v * VL);
#pragma GCC unroll 16
        for (int p = 0; p < P; p++) {
            float xs = x[p][at];
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) acc[p][v] += xs * wv[v];
        }
    }
    for (int p = 0; p < P; p++)
        for (int v = 0; v < V; v++) {
            vec out = acc[p][v];
            if (residual) out += *(const vec *)(residual[p] + v * VL);
            if (relu) out = relu_vec(out);
            *(vec *)(y[p] + v * VL) = out;
        }
}

typedef void (*columns_fn)(const float *const *, const Columns *, const float *, float *const *, const float *const *, int);
#define COLUMNS_FN(name, P, V)                                                                                 \
    static void name##_##V(const float *const *x, const Columns *c, const float *bias, float *const *y,       \
                           const float *const *residual, int relu) {                                          \
        columns_tile(P, V, x, c, bias, y, residual, relu);                                                    \
    }
#define COLUMNS_FNS(V) COLUMNS_FN(columns_of_one, 1, V) COLUMNS_FN(columns_of_tile, CP, V)
COLUMNS_FNS(1) COLUMNS_FNS(2) COLUMNS_FN(columns_of_two, 2 * CP, 1)
/* The functions for one pixel, a tile of CP pixels, and two tiles, by the number of vectors. Two tiles fill the registers where there are
 * few vectors. */
#if NV == 4
COLUMNS_FNS(3) COLUMNS_FNS(4) COLUMNS_FN(columns_of_two, 2 * CP, 2)
static const columns_fn COLUMNS_OF[3][NV + 1] = {
    {0, columns_of_one_1, columns_of_one_2, columns_of_one_3, columns_of_one_4},
    {0, columns_of_tile_1, columns_of_tile_2, columns_of_tile_3, columns_of_tile_4},
    {0, columns_of_two_1, columns_of_two_2}};
#else
static const columns_fn COLUMNS_OF[3][NV + 1] = {
    {0, columns_of_one_1, columns_of_one_2}, {0, columns_of_tile_1, columns_of_tile_2}, {0, columns_of_two_1}};
#endif

/* How many tiles are computed at once if no block has more vectors. */
static int tiles_at_once(int vectors) { return 2 * vectors <= NV ? 2 : 1; }

/* Prefetch a part of the kept weights of the block of outputs at w. */
INLINE void fetch_block(const int32_t *kept, int64_t inputs, int taps, const float *w, int vectors, int64_t part, int64_t parts) {
    int64_t length = (int64_t)taps * (vectors < NV ? vectors : NV) * VL;
    for (int64_t j = inputs * part / parts; j < inputs * (part + 1) / parts; j++) fetch(w + kept[j] * length, length, 0, 1);
}

/* The weights of a convolution that computes n outputs, as columns. */
typedef struct {
    const float *weight, *bias;
    int outputs;
} Block;

static void columns(const Op *op, const State *s, int member, int members, Block of) {
    const int32_t *kept_inputs = kept_of(s, op->in_site);
    const int inputs = count_of(s, op->in_site, op->x.channels), taps = op->kernel_h * op->kernel_w;
    int32_t at[inputs * taps + 1], from[inputs * taps + 1]; /* an array of C has an element, though no input may be kept */
    Columns c = {NULL, at, from, list_taps(op, kept_inputs, inputs, at, from), 0};
    int vectors = (of.outputs + VL - 1) / VL, blocks = (vectors + NV - 1) / NV, pixels = op->y.height * op->y.width;
    int64_t length = (int64_t)op->x.channels * op->kernel_h * op->kernel_w;
    int relu = op->activation == RELU, at_once = tiles_at_once(vectors), most = at_once * CP;
    int64_t tiles = ((int64_t)pixels + most - 1) / most;
    Part part = part_of(op, tiles, blocks, (int64_t)c.steps * vectors * VL, member, members);
    for (int64_t item = part.first_item; item < part.last_item; item++) {
        int64_t tile = part.first_tile + item % part.tiles;
        int first = (int)(item / part.tiles) * NV, here = vectors - first < NV ? vectors - first : NV;
        int pixel = (int)tile * most, left = pixels - pixel < most ? pixels - pixel : most;
        const float *x[2 * CP], *residual[2 * CP];
        float *y[2 * CP];
        pixels_at(op, s, most, pixel, x, y);
        for (int p = 0; p < most; p++) y[p] += first * VL;
        if (op->has_residual) residuals_at(op, s, most, pixel, first * VL, residual);
        c.w = of.weight + first * VL * length, c.step = here * VL;
        if (kept_inputs && first + NV < vectors)
            fetch_block(kept_inputs, inputs, taps, of.weight + (first + NV) * VL * length, vectors - first - NV, tile, tiles);
        COLUMNS_OF[left == 1 ? 0 : at_once][here](x, &c, of.bias + first * VL, y, op->has_residual ? residual : NULL, relu);
        if (op->activation > RELU)
            for (int p = 0; p < left; p++) ACTIVATION_OF[op->activation](y[p], y[p], here * VL);
    }
}

/* Pack the weights of n kept outputs as columns, and their biases; the rest of the last vector are zeros. */
static void pack_columns(const Op *op, const int32_t *kept, int n, int member, int members, float *weight, float *bias) {
    const int all_padded = (op->y.channels + VL - 1) / VL * VL, padded = (n + VL - 1) / VL * VL;
    const int64_t length = (int64_t)op->x.channels * op->kernel_h * op->kernel_w;
    int64_t from, to;
    share(padded, member, members, &from, &to);
    for (int64_t j = from; j < to; j++) {
        const int64_t block = j / BLOCK * BLOCK, width = padded - block < BLOCK ? padded - block : BLOCK;
        float *w = weight + block * length + j - block;
        const int channel = j < n ? kept[j] : 0, first = channel / BLOCK * BLOCK;
        const int of_width = all_padded - first < BLOCK ? all_padded - first : BLOCK;
        const float *of = op->weight + first * length + channel - first;
        for (int64_t i = 0; i < length; i++) w[i * width] = j < n ? of[i * of_width] : 0;
        bias[j] = j < n ? op->bias[channel] : 0;
    }
}

static void picked_columns(const Op *op, State *s, int member, Team *team) {
    const int n = s->count[op->out_site];
    Block of = {op->weight, op->bias, n};
    if (n < op->y.channels) {
        float *weight = s->scratch, *bias = weight + (int64_t)((n + VL - 1) / VL * VL) * op->x.channels * op->kernel_h * op->kernel_w;
        pack_columns(op, kept_of(s, op->out_site), n, member, team->members, weight, bias);
        barrier(team);
        of.weight = weight, of.bias = bias;
    }
    columns(op, s, member, team->members, of);
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
    int padded = (op->hidden + VL - 1) / VL * VL;
    means(op, s, mean);
    for (int h = 0; h < op->hidden; h++)
        hidden[h] = relu_one(op->bias[h] + dot(op->weight + (int64_t)h * op->x.stride, mean, op->x.stride));
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
        rows(op, s, member, members, NULL, (op->x.channels + VL - 1) / VL * VL);
        break;
    case COLUMNS:
        columns(op, s, member, members, (Block){op->weight, op->bias, op->y.channels});
        break;
    case PICKED:
        picked_columns(op, s, member, team);
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
