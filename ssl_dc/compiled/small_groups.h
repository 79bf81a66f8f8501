/* Grouped convolutions whose groups have 2, 4 or 8 inputs and as many outputs, which lie in the lanes of a vector. An input is spread
 * over the lanes of its group, and multiplied with weights [vector of channels][tap][input of the group][channel of the vector].
 *
 * A mask picks whole groups, the same in x and y. Their weights are packed first.
 */
#ifndef SSL_DC_SMALL_GROUPS_H
#define SSL_DC_SMALL_GROUPS_H

/* A vector whose lanes hold, for each group of G lanes, lane I of that group. */
#define LANE_OF(l, G, I) ((l) / (G) * (G) + (I))
#define FOUR_LANES(l, G, I) LANE_OF(l, G, I), LANE_OF(l + 1, G, I), LANE_OF(l + 2, G, I), LANE_OF(l + 3, G, I)
#if VL == 16
#define SPREAD(v, G, I) \
    __builtin_shufflevector(v, v, FOUR_LANES(0, G, I), FOUR_LANES(4, G, I), FOUR_LANES(8, G, I), FOUR_LANES(12, G, I))
#elif VL == 8
#define SPREAD(v, G, I) __builtin_shufflevector(v, v, FOUR_LANES(0, G, I), FOUR_LANES(4, G, I))
#else
#define SPREAD(v, G, I) __builtin_shufflevector(v, v, FOUR_LANES(0, G, I))
#endif

/* Computes a vector of outputs of each of CP pixels: x points to the first taps, w to the weights of the vector. */
#define INPUT(G, I)                                                                       \
    {                                                                                     \
        const vec wv = *(const vec *)(w + (I) * VL);                                      \
        for (int p = 0; p < CP; p++) acc[p] += SPREAD(xv[p], G, I) * wv;                  \
    }
#define SMALL_GROUPS_FN(G, INPUTS)                                                        \
    static void small_groups_##G(const Op *op, const float *const *x, const float *w, vec *acc) { \
        for (int ky = 0; ky < op->kernel_h; ky++)                                         \
            for (int kx = 0; kx < op->kernel_w; kx++, w += (G) * VL) {                    \
                const int64_t tap = (int64_t)ky * op->x.line + (int64_t)kx * op->x.stride; \
                vec xv[CP];                                                               \
                for (int p = 0; p < CP; p++) xv[p] = *(const vec *)(x[p] + tap);          \
                INPUTS                                                                    \
            }                                                                             \
    }
SMALL_GROUPS_FN(2, INPUT(2, 0) INPUT(2, 1))
#if VL > 4
SMALL_GROUPS_FN(4, INPUT(4, 0) INPUT(4, 1) INPUT(4, 2) INPUT(4, 3))
#endif
#if VL > 8
SMALL_GROUPS_FN(8, INPUT(8, 0) INPUT(8, 1) INPUT(8, 2) INPUT(8, 3) INPUT(8, 4) INPUT(8, 5) INPUT(8, 6) INPUT(8, 7))
#endif

static void small_groups_tile(const Op *op, int inputs, const float *const *x, const float *w, vec *acc) {
    switch (inputs) {
    case 2:
        small_groups_2(op, x, w, acc);
        break;
#if VL > 4
    case 4:
        small_groups_4(op, x, w, acc);
        break;
#endif
#if VL > 8
    case 8:
        small_groups_8(op, x, w, acc);
        break;
#endif
    }
}

/* Pack weights and biases of the n kept channels, which are whole groups; the rest of the last vector are zeros. */
static void pack_groups(const Op *op, const int32_t *kept, int n, int member, int members, float *weight, float *bias) {
    const int inputs = op->group_inputs, rows = op->kernel_h * op->kernel_w * inputs;
    int64_t from, to;
    share((n + VL - 1) / VL, member, members, &from, &to);
    for (int64_t j = from * VL; j < to * VL; j += inputs) {
        float *w = weight + j / VL * rows * VL + j % VL;
        const int channel = j < n ? kept[j] : 0;
        const float *of = op->weight + (int64_t)(channel / VL) * rows * VL + channel % VL;
        for (int row = 0; row < rows; row++)
            for (int i = 0; i < inputs; i++) w[row * VL + i] = j < n ? of[row * VL + i] : 0;
        for (int i = 0; i < inputs; i++) bias[j + i] = j < n ? op->bias[channel + i] : 0;
    }
}

static void small_groups(const Op *op, State *s, int member, Team *team) {
    const int inputs = op->group_inputs, rows = op->kernel_h * op->kernel_w * inputs;
    const int n = count_of(s, op->out_site, op->y.channels), pixels = op->y.height * op->y.width;
    const float *weight = op->weight, *bias = op->bias;
    if (n < op->y.channels) {
        float *packed = s->scratch, *biases = packed + (int64_t)((n + VL - 1) / VL * VL) * rows;
        pack_groups(op, kept_of(s, op->out_site), n, member, team->members, packed, biases);
        weight = packed, bias = biases;
        barrier(team);
    }
    int64_t from, to;
    share(((int64_t)pixels + CP - 1) / CP, member, team->members, &from, &to);
    for (int first = 0; first < n; first += VL)
        for (int64_t tile = from; tile < to; tile++) {
            const int pixel = (int)tile * CP, left = pixels - pixel < CP ? pixels - pixel : CP;
            const float *x[CP];
            float *y[CP];
            vec acc[CP];
            pixels_at(op, s, CP, pixel, x, y);
            for (int p = 0; p < CP; p++) acc[p] = *(const vec *)(bias + first), x[p] += first;
            small_groups_tile(op, inputs, x, weight + (int64_t)first * rows, acc);
            for (int p = 0; p < left; p++) {
                *(vec *)(y[p] + first) = acc[p];
                if (op->activation) ACTIVATION_OF[op->activation](y[p] + first, y[p] + first, VL);
            }
        }
}

#endif
