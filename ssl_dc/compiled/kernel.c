/* Runs a plan (ssl_dc/compiled/plan.py) image by image, and computes only what the masks keep.
 *
 * An activation is laid out as (row, column, channel). It has a border of zeros, as wide as the widest padding of the operations
 * that read it. The channels of a pixel are padded with zeros to whole vectors. A channel-gated activation holds only its kept
 * channels, side by side. There are two ways to convolve; neither copies a weight:
 *
 *   rows     out[p][j] = sum over taps and inputs of x[p + tap][i] * w[kept[j]][tap][i]     (picks outputs: dot products)
 *   columns  out[p][o] = sum over taps and inputs of x[p + tap][j] * w[kept[j]][tap][o]     (picks inputs: scaled vectors)
 *
 * A convolution that picks both outputs and inputs first packs its kept weights, then runs as rows.
 * What the kernel cannot compute is a host operation: the kernel stops before it, the host (Python) does it, and the kernel goes on.
 * Vectors are vector types of the compiler (GCC, Clang), as wide as those of the processor.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <time.h>

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

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() ((void)0)
#endif

#define INLINE static inline __attribute__((always_inline))
#define MAX_THREADS 64

enum kind { ROWS = 0, COLUMNS = 1, PACKED = 2, MAXPOOL = 3, MEAN = 4, GATE = 5, RELU_OF = 6, HOST = 7 };

/* The place of an activation in the arena. The channels of a pixel are side by side, except in the input images. */
typedef struct {
    int64_t offset; /* index of the first float of the first pixel inside the border */
    int32_t height, width, channels;
    int32_t stride, line, plane; /* floats from a pixel, a row, a channel to the next */
} Activation;

typedef struct {
    int32_t kind;
    int32_t relu;
    int32_t kernel_h, kernel_w, step, pad_h, pad_w;
    int32_t in_site, out_site;      /* the sites whose masks pick inputs and outputs; -1: none */
    int32_t branch_site, unless;    /* run only if this branch is open (with unless: only if it is shut); -1: always run */
    int32_t has_residual;
    int32_t site, hidden;           /* of a gate: its site, and its number of hidden units */
    Activation x, y, residual;
    const float *weight, *bias;     /* of a convolution, or of the first layer of a gate */
    const float *weight2, *bias2;   /* of the second layer of a gate */
} Op;

typedef struct {
    int32_t channels; /* width of the mask */
    int32_t first;    /* index of its first entry in the list of all mask entries of an image */
} Site;

typedef struct {
    const Op *ops;
    const Site *sites;
    int32_t n_ops, n_sites;
    int32_t n_masks;  /* number of mask entries of an image, over all sites */
    int32_t features; /* width of the output */
    Activation input; /* 3 channels */
    int64_t output;   /* index of the first feature in the arena */
} Program;

/* The memory in which one image is computed. */
typedef struct {
    const Site *sites;
    float *arena, *scratch;
    int32_t *kept;  /* for each site the indices of its open entries, from Site.first on */
    int32_t *count; /* for each site the number of its open entries */
} State;

static const int32_t *kept_of(const State *s, int site) { return site < 0 ? NULL : s->kept + s->sites[site].first; }
static int count_of(const State *s, int site, int all) { return site < 0 ? all : s->count[site]; }

/* ---- threads ---- */

/* Threads that share the work of one image; a team of one works alone. */

typedef struct {
    int members;
    atomic_int arrived, round;
} Team;

static void barrier(Team *team) {
    if (team->members == 1) return;
    int round = atomic_load_explicit(&team->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == team->members - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->round, round + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&team->round, memory_order_acquire) == round; spins++) {
        if (spins < 4000) PAUSE();
        else sched_yield();
    }
}

static void share(int64_t n, int member, int members, int64_t *from, int64_t *to) {
    *from = n * member / members;
    *to = n * (member + 1) / members;
}

/* ---- the rows kernel ---- */

INLINE vec relu_vec(vec v) { return (vec)(~(v < (vec){0}) & (ivec)v); }
INLINE float relu_one(float v) { return v < 0 ? 0 : v; }

INLINE float sum_of(vec v) {
    float lanes[VL], total = 0;
    memcpy(lanes, &v, sizeof v);
    for (int half = VL / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    total = lanes[0];
    return total;
}

/* Computes the sum over the lanes of each of VL vectors. The sum of vector i is in lane LANE[i] of the result; LANE is its own
 * inverse. FOLD_h adds the two halves of each run of 2h lanes, and puts the sums of its two vectors side by side. */
#if VL == 16
#define FOLD_8(a, b) \
    (__builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) + \
     __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
#define FOLD_4(a, b) \
    (__builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) + \
     __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
#define FOLD_2(a, b) \
    (__builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) + \
     __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
#define FOLD_1(a, b) \
    (__builtin_shufflevector(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) + \
     __builtin_shufflevector(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
static const unsigned char LANE[VL] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};
#elif VL == 8
#define FOLD_4(a, b) \
    (__builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + \
     __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15))
#define FOLD_2(a, b) \
    (__builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + \
     __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15))
#define FOLD_1(a, b) \
    (__builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) + \
     __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15))
static const unsigned char LANE[VL] = {0, 4, 2, 6, 1, 5, 3, 7};
#else
#define FOLD_2(a, b) \
    (__builtin_shufflevector(a, b, 0, 1, 4, 5) + \
     __builtin_shufflevector(a, b, 2, 3, 6, 7))
#define FOLD_1(a, b) \
    (__builtin_shufflevector(a, b, 0, 4, 2, 6) + \
     __builtin_shufflevector(a, b, 1, 5, 3, 7))
static const unsigned char LANE[VL] = {0, 2, 1, 3};
#endif
INLINE vec sums_of(vec *v) {
#if VL >= 16
    for (int i = 0; i < 8; i++) v[i] = FOLD_8(v[2 * i], v[2 * i + 1]);
#endif
#if VL >= 8
    for (int i = 0; i < 4; i++) v[i] = FOLD_4(v[2 * i], v[2 * i + 1]);
#endif
    for (int i = 0; i < 2; i++) v[i] = FOLD_2(v[2 * i], v[2 * i + 1]);
    return FOLD_1(v[0], v[1]);
}

typedef struct {
    int kernel_h, kernel_w, line, stride, depth, relu; /* depth: number of inputs, padded to whole vectors */
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
        for (int r = 0; r < R; r++) {
            float v = sums[p * R + r] + bias[r];
            y[p][r] = c->relu ? relu_one(v) : v;
        }
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

/* Prefetch one of `parts` equal parts of some weights. */
INLINE void fetch(const float *from, int64_t floats, int64_t part, int64_t parts) {
    int64_t lines = floats / 16;
    for (int64_t line = lines * part / parts; line < lines * (part + 1) / parts; line++) __builtin_prefetch(from + line * 16, 0, 2);
}

/* Point to n pixels from `first` on: to their first taps in x, and to their places in y. The last pixel is repeated if fewer are
 * left. */
INLINE void pixels_at(const Op *op, const State *s, int n, int first, const float **x, float **y) {
    const float *x0 = s->arena + op->x.offset - (int64_t)op->pad_h * op->x.line - (int64_t)op->pad_w * op->x.stride;
    int last = op->y.height * op->y.width - 1;
    int row = first / op->y.width, column = first % op->y.width;
    for (int p = 0; p < n; p++) {
        x[p] = x0 + (int64_t)row * op->step * op->x.line + (int64_t)column * op->step * op->x.stride;
        y[p] = s->arena + op->y.offset + (int64_t)row * op->y.line + (int64_t)column * op->y.stride;
        if (first + p < last && ++column == op->y.width) column = 0, row++;
    }
}

/* The part of a convolution that a member of a team computes, in items of one tile of pixels with one block of weights. Where
 * there is more memory in the pixels than in the weights, each member computes the same part of the picture in every layer: it then
 * reads what it wrote itself, which is in the cache of its own core. Elsewhere each member takes some blocks of weights, so that no
 * two members read the same weights. */
typedef struct {
    int64_t tiles, first_tile, last_tile, first_item, last_item;
} Part;

static Part part_of(const Op *op, int64_t tiles, int64_t blocks, int64_t weights, int member, int members) {
    int by_pixels = tiles >= 4 * members && weights <= (int64_t)op->x.height * op->x.width * op->x.stride;
    Part part = {.tiles = tiles, .last_tile = tiles};
    if (by_pixels) share(tiles, member, members, &part.first_tile, &part.last_tile);
    part.tiles = part.last_tile - part.first_tile;
    part.last_item = part.tiles * blocks;
    if (!by_pixels) share(tiles * blocks, member, members, &part.first_item, &part.last_item);
    return part;
}

static void rows(const Op *op, const State *s, int member, int members, const float *packed, int depth) {
    Rows c = {op->kernel_h, op->kernel_w, op->x.line, op->x.stride, depth, op->relu};
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
    const float *w;       /* the weights of one block of outputs: [input][tap][V vectors] */
    const int32_t *kept;  /* indices of the kept inputs; NULL: all */
    int inputs, kernel_h, kernel_w, line, stride, plane;
} Columns;

INLINE void columns_tile(const int V, const float *const *x, const Columns *c, const float *bias, float *const *y,
                         const float *const *residual, int relu) {
    vec acc[CP][NV];
    for (int v = 0; v < V; v++) {
        vec b = *(const vec *)(bias + v * VL);
        for (int p = 0; p < CP; p++) acc[p][v] = b;
    }
    int taps = c->kernel_h * c->kernel_w;
    for (int j = 0; j < c->inputs; j++) {
        const float *w = c->w + (int64_t)(c->kept ? c->kept[j] : j) * taps * V * VL;
        for (int ky = 0; ky < c->kernel_h; ky++) {
            int64_t tap = (int64_t)ky * c->line + (int64_t)j * c->plane;
            for (int kx = 0; kx < c->kernel_w; kx++, tap += c->stride, w += V * VL) {
                vec wv[NV];
#pragma GCC unroll 8
                for (int v = 0; v < V; v++) wv[v] = *(const vec *)(w + v * VL);
#pragma GCC unroll 8
                for (int p = 0; p < CP; p++) {
                    float xs = x[p][tap];
#pragma GCC unroll 8
                    for (int v = 0; v < V; v++) acc[p][v] += xs * wv[v];
                }
            }
        }
    }
    for (int p = 0; p < CP; p++)
        for (int v = 0; v < V; v++) {
            vec out = acc[p][v];
            if (residual) out += *(const vec *)(residual[p] + v * VL);
            if (relu) out = relu_vec(out);
            *(vec *)(y[p] + v * VL) = out;
        }
}

#define COLUMNS_FN(V)                                                                                          \
    static void columns_##V(const float *const *x, const Columns *c, const float *bias, float *const *y,       \
                            const float *const *residual, int relu) {                                          \
        columns_tile(V, x, c, bias, y, residual, relu);                                                        \
    }
COLUMNS_FN(1)
COLUMNS_FN(2)
#if NV >= 3
COLUMNS_FN(3)
COLUMNS_FN(4)
#endif
typedef void (*columns_fn)(const float *const *, const Columns *, const float *, float *const *, const float *const *, int);
static const columns_fn COLUMNS_OF[] = {
    0, columns_1, columns_2,
#if NV >= 3
    columns_3, columns_4,
#endif
};

INLINE void residuals_at(const Op *op, const State *s, int n, int first, int channel, const float **residual) {
    int last = op->y.height * op->y.width - 1;
    int row = first / op->y.width, column = first % op->y.width;
    for (int p = 0; p < n; p++) {
        residual[p] = s->arena + op->residual.offset + (int64_t)row * op->residual.line +
                      (int64_t)column * op->residual.stride + channel;
        if (first + p < last && ++column == op->y.width) column = 0, row++;
    }
}

/* Prefetch a part of the kept weights of the block of outputs at w. */
INLINE void fetch_block(const Columns *c, const float *w, int vectors, int64_t part, int64_t parts) {
    int64_t length = (int64_t)c->kernel_h * c->kernel_w * (vectors < NV ? vectors : NV) * VL;
    for (int64_t j = c->inputs * part / parts; j < c->inputs * (part + 1) / parts; j++) fetch(w + c->kept[j] * length, length, 0, 1);
}

static void columns(const Op *op, const State *s, int member, int members) {
    Columns c = {NULL, kept_of(s, op->in_site), count_of(s, op->in_site, op->x.channels),
                 op->kernel_h, op->kernel_w, op->x.line, op->x.stride, op->x.plane};
    int vectors = (op->y.channels + VL - 1) / VL, blocks = (vectors + NV - 1) / NV;
    int64_t tiles = ((int64_t)op->y.height * op->y.width + CP - 1) / CP;
    int64_t length = (int64_t)op->x.channels * op->kernel_h * op->kernel_w;
    int64_t kept = length / op->x.channels * c.inputs;
    Part part = part_of(op, tiles, blocks, kept * vectors * VL, member, members);
    for (int64_t item = part.first_item; item < part.last_item; item++) {
        int64_t tile = part.first_tile + item % part.tiles;
        int first = (int)(item / part.tiles) * NV, here = vectors - first < NV ? vectors - first : NV;
        int pixel = (int)tile * CP;
        const float *x[CP], *residual[CP];
        float *y[CP];
        pixels_at(op, s, CP, pixel, x, y);
        for (int p = 0; p < CP; p++) y[p] += first * VL;
        if (op->has_residual) residuals_at(op, s, CP, pixel, first * VL, residual);
        c.w = op->weight + first * VL * length;
        if (c.kept && first + NV < vectors)
            fetch_block(&c, op->weight + (first + NV) * VL * length, vectors - first - NV, tile, tiles);
        COLUMNS_OF[here](x, &c, op->bias + first * VL, y, op->has_residual ? residual : NULL, op->relu);
    }
}

/* ---- the other operations ---- */

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
            float *y = s->arena + op->y.offset + (int64_t)row * op->y.line + (int64_t)column * op->y.stride;
            int top = row * op->step - op->pad_h, left = column * op->step - op->pad_w;
            int y0 = top < 0 ? 0 : top, y1 = top + op->kernel_h < op->x.height ? top + op->kernel_h : op->x.height;
            int x0 = left < 0 ? 0 : left, x1 = left + op->kernel_w < op->x.width ? left + op->kernel_w : op->x.width;
            const float *x = s->arena + op->x.offset + (int64_t)y0 * op->x.line + (int64_t)x0 * op->x.stride;
            for (int i = 0; i < op->y.stride; i += VL) {
                vec best = *(const vec *)(x + i);
                for (int r = 0; r < y1 - y0; r++)
                    for (int c = 0; c < x1 - x0; c++) {
                        vec v = *(const vec *)(x + (int64_t)r * op->x.line + (int64_t)c * op->x.stride + i);
                        ivec kept = ~(v > best) & (v == v); /* a NaN wins, as in torch */
                        best = (vec)((kept & (ivec)best) | (~kept & (ivec)v));
                    }
                *(vec *)(y + i) = best;
            }
        }
}

#define PARTS 8

/* Sum each channel over the pixels. The rows are always split into the same PARTS, so that a gate decides the same with any number
 * of threads. */
static void sums(const Op *op, const State *s, int member, int members) {
    int64_t from, to;
    share(PARTS, member, members, &from, &to);
    for (int64_t part = from; part < to; part++) {
        float *total = s->scratch + part * op->x.stride;
        memset(total, 0, sizeof(float) * op->x.stride);
        int64_t first, last;
        share(op->x.height, (int)part, PARTS, &first, &last);
        for (int64_t row = first; row < last; row++) {
            const float *x = s->arena + op->x.offset + row * op->x.line;
            for (int i = 0; i < op->x.stride; i += VL * 4) {
                int vectors = (op->x.stride - i) / VL < 4 ? (op->x.stride - i) / VL : 4;
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
    for (int i = 0; i < op->x.stride; i += VL) {
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
}

static void relu_of(const Op *op, const State *s, int member, int members) {
    int64_t from, to;
    share(op->y.height, member, members, &from, &to);
    for (int64_t row = from; row < to; row++)
        for (int column = 0; column < op->y.width; column++) {
            const float *x = s->arena + op->x.offset + row * op->x.line + (int64_t)column * op->x.stride;
            float *y = s->arena + op->y.offset + row * op->y.line + (int64_t)column * op->y.stride;
            for (int i = 0; i < op->y.stride; i += VL) {
                vec v = *(const vec *)(x + i);
                *(vec *)(y + i) = op->relu ? relu_vec(v) : v;
            }
        }
}

static int runs(const Op *op, const State *s) {
    return op->branch_site < 0 || (s->count[op->branch_site] > 0) != op->unless;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Run the operations from `start` on, up to the next host operation or the end. Returns the index of the host operation, or n_ops.
 * seconds: NULL, or the time of each operation is added here. */
static int run(const Program *program, State *s, int start, int member, Team *team, double *seconds) {
    double since = seconds ? now() : 0;
    for (int i = start; i < program->n_ops; i++) {
        const Op *op = program->ops + i;
        if (op->kind == HOST) {
            if (runs(op, s)) return i;
            continue;
        }
        if (!runs(op, s)) continue;
        int members = team->members;
        switch (op->kind) {
        case ROWS:
            rows(op, s, member, members, NULL, (op->x.channels + VL - 1) / VL * VL);
            break;
        case COLUMNS:
            columns(op, s, member, members);
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
        case RELU_OF:
            relu_of(op, s, member, members);
            break;
        }
        barrier(team);
        if (seconds && !member) {
            double then = now();
            seconds[i] += then - since;
            since = then;
        }
    }
    return program->n_ops;
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

static void take(const Program *program, const State *s, float *features, uint8_t *masks) {
    memcpy(features, s->arena + program->output, sizeof(float) * program->features);
    memset(masks, 0, program->n_masks);
    for (int i = 0; i < program->n_sites; i++)
        for (int j = 0; j < s->count[i]; j++) masks[program->sites[i].first + s->kept[program->sites[i].first + j]] = 1;
}

/* ---- calls from outside ---- */

typedef struct {
    const Program *program;
    State *states;
    const float *images;
    float *features;
    uint8_t *masks;
    int64_t n;
    int32_t *positions;
    int start, stopped, together;
    double *seconds;
    Team team;
    atomic_long next;
} Call;

static void work(Call *call, int member) {
    const Program *program = call->program;
    if (call->together) {
        if (call->images) {
            put_image(program, call->states, call->images, member, call->team.members);
            barrier(&call->team);
        }
        int stopped = run(program, call->states, call->start, member, &call->team, call->seconds);
        if (!member) call->stopped = stopped;
        return;
    }
    Team alone = {.members = 1};
    int64_t size = (int64_t)program->input.channels * program->input.height * program->input.width;
    for (int64_t i; (i = atomic_fetch_add(&call->next, 1)) < call->n;) {
        State *s = call->states + (call->positions ? i : member);
        int start = call->positions ? call->positions[i] : 0;
        if (start > program->n_ops) continue;
        if (!start) put_image(program, s, call->images + i * size, 0, 1);
        int stopped = run(program, s, start, 0, &alone, NULL);
        if (stopped == program->n_ops) {
            take(program, s, call->features + i * program->features, call->masks + i * program->n_masks);
            stopped++;
        }
        if (call->positions) call->positions[i] = stopped;
    }
}

/* A pool of workers serves one call at a time. A thread that waits spins for about 50 microseconds before it sleeps: waking it
 * up would take as long, and the next call often comes within that time. */
#define SPINS 4000
static pthread_mutex_t serving = PTHREAD_MUTEX_INITIALIZER, lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t called = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static int workers;
static pthread_t threads_of[MAX_THREADS];
static int callers_processor = -1, workers_kept_off; /* see keep_off_the_callers_processor */
static atomic_int busy;
static atomic_long calls;
static Call *current;

static void *worker(void *argument) {
    int member = (int)(intptr_t)argument;
    pthread_mutex_lock(&lock);
    long seen = calls - 1; /* a worker is made for a call that has already begun */
    for (;;) {
        while (calls == seen) pthread_cond_wait(&called, &lock);
        seen = calls;
        Call *call = current;
        int asked = call && member < call->team.members; /* if not, the call must not be read after the lock is released */
        pthread_mutex_unlock(&lock);
        if (asked) {
            work(call, member);
            if (atomic_fetch_sub(&busy, 1) == 1) {
                pthread_mutex_lock(&lock);
                pthread_cond_signal(&done);
                pthread_mutex_unlock(&lock);
            }
            for (int spins = 0; spins < SPINS && calls == seen; spins++) PAUSE();
        }
        pthread_mutex_lock(&lock);
    }
    return NULL;
}

/* Make the pool new in a forked child: the workers of its parent are not there. */
static void forget_workers(void) {
    workers = 0, workers_kept_off = 0, callers_processor = -1;
    busy = 0;
    current = NULL;
    pthread_mutex_init(&serving, NULL);
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&called, NULL);
    pthread_cond_init(&done, NULL);
}

__attribute__((constructor)) static void at_load(void) { pthread_atfork(NULL, NULL, forget_workers); }

/* Keep the workers off the processor that the caller runs on. On an idle machine the scheduler wakes them there. They would then
 * wait for the caller, and the caller for them, until the scheduler moves them some milliseconds later. */
static void keep_off_the_callers_processor(void) {
#ifdef __linux__
    cpu_set_t allowed;
    int here = sched_getcpu();
    if (here < 0 || (here == callers_processor && workers == workers_kept_off)) return;
    if (sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) < 2) return;
    CPU_CLR(here, &allowed);
    for (int i = 0; i < workers; i++) pthread_setaffinity_np(threads_of[i], sizeof allowed, &allowed);
    callers_processor = here, workers_kept_off = workers;
#endif
}

static void serve(Call *call) {
    if (call->team.members == 1) {
        work(call, 0);
        return;
    }
    pthread_mutex_lock(&serving);
    pthread_mutex_lock(&lock);
    current = call;
    calls++;
    busy = call->team.members - 1;
    while (workers < call->team.members - 1) {
        if (pthread_create(threads_of + workers, NULL, worker, (void *)(intptr_t)(workers + 1))) break;
        pthread_detach(threads_of[workers]);
        workers++;
    }
    keep_off_the_callers_processor();
    if (workers < call->team.members - 1) call->team.members = 1 + workers, busy = workers;
    pthread_cond_broadcast(&called);
    pthread_mutex_unlock(&lock);
    work(call, 0);
    for (int spins = 0; spins < SPINS && busy; spins++) PAUSE();
    pthread_mutex_lock(&lock);
    while (busy) pthread_cond_wait(&done, &lock);
    current = NULL;
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&serving);
}

static int members_of(int threads) { return threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads; }

/* Run n images (3, H, W) of float32; each is run by one thread.
 * positions: NULL if the program has no host operation; there are as many states as threads then. Else there is a state for each
 * image, and positions holds the operation that each image starts from (0: the image is put in first; above n_ops: it is done).
 * After the call it holds the host operation that the image stopped before, or n_ops + 1 if its features and masks are written. */
void ssl_dc_run_many(const Program *program, State *states, const float *images, int64_t n, float *features, uint8_t *masks,
                     int32_t *positions, int threads) {
    Call call = {.program = program, .states = states, .images = images, .features = features, .masks = masks, .n = n,
                 .positions = positions};
    call.team.members = members_of(threads);
    serve(&call);
}

/* Run one image with all threads together, from an operation on. image: NULL to go on with the image that was put in before.
 * Returns the index of the host operation that must be done next, or n_ops. seconds: NULL, or the time of each operation is added
 * here. */
int ssl_dc_run_one(const Program *program, State *state, const float *image, int start, int threads, double *seconds) {
    Call call = {.program = program, .states = state, .images = image, .start = start, .together = 1, .seconds = seconds};
    call.team.members = members_of(threads);
    serve(&call);
    return call.stopped;
}

void ssl_dc_take(const Program *program, const State *state, float *features, uint8_t *masks) {
    take(program, state, features, masks);
}

/* The sizes by which the host lays out weights and activations. */
int ssl_dc_vector(void) { return VL; }
int ssl_dc_block(void) { return VL * NV; }
int ssl_dc_parts(void) { return PARTS; }
int ssl_dc_max_threads(void) { return MAX_THREADS; }
int ssl_dc_size_of_op(void) { return sizeof(Op); }
int ssl_dc_size_of_program(void) { return sizeof(Program); }
int ssl_dc_size_of_state(void) { return sizeof(State); }
