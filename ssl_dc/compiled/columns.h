/* Convolutions as columns: the weights of each kept input, [input][tap][outputs], times a number of x are added to all outputs.
 *
 * With AVX2 the loop over the taps reaches the two products a cycle that the processor can do, and takes 22 instructions for 10 of
 * them. Fewer instructions matter most where another program shares the core.
 */
#ifndef SSL_DC_COLUMNS_H
#define SSL_DC_COLUMNS_H

#define RUN 3 /* taps whose weights lie side by side, so that columns_tile computes them in a row */

/* The taps of the kept inputs of a convolution: first those in runs, then the others. So columns_tile has no nested short loops, whose
 * ends are hard to predict. */
typedef struct {
    int32_t *at;   /* for each tap: elements from the first tap of a pixel to it */
    int32_t *from; /* for each run, and then for each other tap: bytes from the weights of a block of outputs to its weights */
    int runs, others;
    int64_t ahead; /* bytes from the weights of a run, or of another tap, to what is prefetched while it is computed; 0: nothing is */
} Taps;

/* Add the taps `first` to `last` of each lane of inputs in `kept`, which have weights of `width` outputs, in runs. */
static void add_taps(Taps *t, const Op *op, const int32_t *kept, int inputs, int first, int last, int run, int width) {
    const int taps = op->kernel_h * op->kernel_w;
    for (int j = 0; j < inputs; j++)
        for (int tap = first; tap < last; tap++) {
            if ((tap - first) % run == 0) *t->from++ = ((kept ? kept[j] : j) * taps + tap) * width * DEPTH * (int)sizeof(Weight);
            *t->at++ = tap / op->kernel_w * op->x.line + tap % op->kernel_w * op->x.stride + j * op->x.plane * DEPTH;
        }
}

/* List the taps of the kept lanes of inputs (NULL: the first ones), for a block of `width` outputs. at and from hold as many numbers as there are taps. */
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
    const Element *const x##p = x[p < P ? p : 0];           \
    vec a##p##_0 = *(const vec *)bias, a##p##_1, a##p##_2, a##p##_3; \
    if (V > 1) a##p##_1 = *(const vec *)(bias + VL);          \
    if (V > 2) a##p##_2 = *(const vec *)(bias + 2 * VL);      \
    if (V > 3) a##p##_3 = *(const vec *)(bias + 3 * VL);
#define ADD_TO(sum, weights) \
    do {                     \
        ADD_PRODUCTS(sum, xs, weights); \
        HOLD(sum);           \
    } while (0)
#define ADD_PIXEL(p)                       \
    if (p < P) {                           \
        const Broadcast xs = broadcast_at(x##p + tap); \
        ADD_TO(a##p##_0, w0);              \
        if (V > 1) ADD_TO(a##p##_1, w1);   \
        if (V > 2) ADD_TO(a##p##_2, w2);   \
        if (V > 3) ADD_TO(a##p##_3, w3);   \
    }
#define WEIGHTS(v)                               \
    Operand w##v;                                \
    if (v < V) {                                 \
        w##v = operand_at(weights + v * VECTOR); \
        HOLD_OPERAND(w##v);                      \
    }
#define ADD_TAP(at, from)                                             \
    do {                                                              \
        const int64_t tap = (at);                                     \
        const Weight *weights = (from);                               \
        WEIGHTS(0) WEIGHTS(1) WEIGHTS(2) WEIGHTS(3) EACH_PIXEL(ADD_PIXEL) \
    } while (0)
#define ADD_TAPS(TAPS, FETCH)                                                  \
    do {                                                                       \
        const Weight *of = (const Weight *)((const char *)w + *from);          \
        FETCH;                                                                 \
        _Pragma("GCC unroll 4") for (int i = 0; i < TAPS; i++) ADD_TAP(at[i], of + i * V * VECTOR); \
    } while (0)
#define FINISH_ONE(sum, p, v)                                   \
    do {                                                        \
        vec out = sum;                                          \
        if (residual) out += numbers_at(residual[p] + v * VL); \
        if (relu) out = relu_vec(out);                          \
        put_numbers(y[p] + v * VL, out);                         \
    } while (0)
#define FINISH(p)                              \
    if (p < P) {                               \
        FINISH_ONE(a##p##_0, p, 0);            \
        if (V > 1) FINISH_ONE(a##p##_1, p, 1); \
        if (V > 2) FINISH_ONE(a##p##_2, p, 2); \
        if (V > 3) FINISH_ONE(a##p##_3, p, 3); \
    }

/* Prefetch so many vectors of weights. */
INLINE void prefetch_weights(const char *from, const int vectors) {
#pragma GCC unroll 16
    for (int byte = 0; byte < vectors * VECTOR * (int)sizeof(Weight); byte += 64) __builtin_prefetch(from + byte, 0, 2);
}

/* Computes V vectors of outputs of each of P pixels. w: the weights of the block of outputs: [lane of inputs][tap][V vectors]. */
INLINE void columns_tile(const int P, const int V, const Element *const *x, const Taps *t, const Weight *w, const float *bias,
                         Element *const *y, const Element *const *residual, int relu) {
    EACH_PIXEL(START)
    const int32_t *at = t->at, *from = t->from, *end = from + t->runs, *last = end + t->others;
    if (t->ahead) {
        for (; from < end; at += RUN, from++) ADD_TAPS(RUN, prefetch_weights((const char *)of + t->ahead, RUN * V));
        for (; from < last; at++, from++) ADD_TAPS(1, prefetch_weights((const char *)of + t->ahead, V));
    }
    for (; from < end; at += RUN, from++) ADD_TAPS(RUN, (void)0);
    for (; from < last; at++, from++) ADD_TAPS(1, (void)0);
    EACH_PIXEL(FINISH)
}

typedef void (*columns_fn)(const Element *const *, const Taps *, const Weight *, const float *, Element *const *,
                           const Element *const *, int);
#define COLUMNS_FN(P, V)                                                                                                  \
    static void columns_##P##_##V(const Element *const *x, const Taps *t, const Weight *w, const float *bias,             \
                                  Element *const *y, const Element *const *residual, int relu) {                          \
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

/* The weights of a convolution, as columns: [block of outputs][lane of inputs][tap][output of the block]. */
typedef struct {
    const Weight *weight;
    const float *bias;
    int first, outputs;  /* which of the outputs of y these are */
    int written;         /* so many are written: zeros after those that there are */
    int lanes;           /* lanes of inputs that there are weights of */
    const int32_t *kept; /* those that are used; NULL: all */
    int used;
} Block;

/* The weights of a convolution that computes all outputs, from all inputs or, with lanes of one input, from kept ones. */
INLINE Block all_outputs(const Op *op, const State *s) {
    const int lanes = (op->x.channels + DEPTH - 1) / DEPTH;
    return (Block){op->weight, op->bias, 0, op->y.channels, op->y.channels, lanes, kept_of(s, op->in_site),
                   count_of(s, op->in_site, lanes)};
}

/* Where so few weights are used, all blocks of a tile are computed before the next tile: the weights stay in the cache, and a pixel is
 * read and written once. Counted in lanes of weights. */
#define NEAR_WEIGHTS 32768

static void columns(const Op *op, const State *s, int member, int members, Block of) {
    const int taps = op->kernel_h * op->kernel_w;
    int32_t at[of.used * taps + 1], from[of.used * taps + 1]; /* an array of C has an element, though no input may be kept */
    Taps list = {0};
    int vectors = (of.outputs + VL - 1) / VL, blocks = (vectors + NV - 1) / NV, pixels = op->y.height * op->y.width;
    const int64_t length = (int64_t)of.lanes * taps, used = (int64_t)of.used * taps * vectors * VL;
    int relu = op->activation == RELU, most = pixels_at_once(vectors), listed = 0;
    int64_t tiles = ((int64_t)pixels + most - 1) / most;
    Part part = part_of(op, tiles, blocks, used * DEPTH, member, members);
    const int near = vectors % NV == 0 && used <= NEAR_WEIGHTS;
    const Element *x[MOST_PIXELS], *residual[MOST_PIXELS], *at_block[MOST_PIXELS];
    Element *y[MOST_PIXELS], *to[MOST_PIXELS];
    int64_t latest = -1;
    for (int64_t item = part.first_item; item < part.last_item; item++) {
        const int64_t tile = part.first_tile + (near ? item / blocks : item % part.tiles);
        const int first = (int)(near ? item % blocks : item / part.tiles) * NV, here = vectors - first < NV ? vectors - first : NV;
        const int pixel = (int)tile * most, left = pixels - pixel < most ? pixels - pixel : most;
        if (here != listed) list = list_taps(op, of.kept, of.used, here * VL, at, from), listed = here;
        if (tile != latest) {
            pixels_at(op, s, most, pixel, x, y);
            if (op->has_residual) residuals_at(op, s, most, pixel, 0, residual);
            latest = tile;
        }
        for (int p = 0; p < most; p++) to[p] = y[p] + of.first + first * VL;
        if (op->has_residual)
            for (int p = 0; p < most; p++) at_block[p] = residual[p] + of.first + first * VL;
        /* the kept weights of the next block are scattered: prefetch them while the first tile of this one is computed */
        const int fetches = of.kept && !near && item % part.tiles == 0 && first + NV < vectors;
        list.ahead = fetches ? NV * VECTOR * length * (int64_t)sizeof(Weight) : 0;
        columns_of(left, here)(x, &list, of.weight + first * VECTOR * length, of.bias + first * VL, to,
                               op->has_residual ? at_block : NULL, relu);
        if (op->activation > RELU)
            for (int p = 0; p < left; p++) activate_numbers(op->activation, to[p], to[p], here * VL);
        if (first + here == vectors)
            for (int i = here; (first + i) * VL < of.written; i++)
                for (int p = 0; p < left; p++) put_numbers(to[p] + i * VL, (vec){0});
    }
}

#endif
