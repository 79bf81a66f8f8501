/* Depthwise convolutions: each channel of y is made of one channel of x, by weights [vector of channels][tap][channel of the vector].
 *
 * If a mask picks channels, their weights are packed first. If x has all channels nevertheless, its picked ones are packed too.
 */
#ifndef SSL_DC_DEPTHWISE_H
#define SSL_DC_DEPTHWISE_H

/* Pixels of a row that are computed at once: one vector each stays in a register, with the weights of a row of taps. */
#if REGISTERS == 32
#define DP 7
#else
#define DP 4
#endif
#define MAX_TAPS 7 /* the widest row of taps with a function of its own */

typedef struct {
    const float *x;       /* the first tap of the first pixel */
    int line, stride;     /* of x */
    const float *weight, *bias;
    int channels;         /* of x and y, padded to whole vectors */
} Depthwise;

/* Computes a vector of channels of P neighbouring pixels: x points to the first tap, S is the stride and K the side of the kernel. */
INLINE void depthwise_tile(const int K, const int S, const int P, const Depthwise *d, const float *x, const float *w, vec bias,
                           float *y, int y_stride) {
    vec acc[DP];
#pragma GCC unroll 8
    for (int p = 0; p < P; p++) acc[p] = bias;
    for (int ky = 0; ky < K; ky++, x += d->line, w += K * VL) {
        vec wv[MAX_TAPS];
#pragma GCC unroll 8
        for (int kx = 0; kx < K; kx++) wv[kx] = *(const vec *)(w + kx * VL);
#pragma GCC unroll 32
        for (int c = 0; c < (P - 1) * S + K; c++) {
            vec xv = *(const vec *)(x + (int64_t)c * d->stride);
#pragma GCC unroll 8
            for (int p = 0; p < P; p++)
                if (c >= p * S && c < p * S + K) acc[p] += xv * wv[c - p * S];
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; p++) *(vec *)(y + (int64_t)p * y_stride) = acc[p];
}

typedef void (*depthwise_fn)(const Depthwise *, const float *, const float *, vec, float *, int);
#define DEPTHWISE_FN(K, S)                                                                                                   \
    static void depthwise_##K##_##S(const Depthwise *d, const float *x, const float *w, vec bias, float *y, int y_stride) { \
        depthwise_tile(K, S, DP, d, x, w, bias, y, y_stride);                                                                \
    }
DEPTHWISE_FN(3, 1) DEPTHWISE_FN(3, 2) DEPTHWISE_FN(5, 1) DEPTHWISE_FN(5, 2) DEPTHWISE_FN(7, 1) DEPTHWISE_FN(7, 2)

/* The function for a kernel of this side and stride; NULL if there is none. */
static depthwise_fn depthwise_of(int kernel_h, int kernel_w, int step) {
    static const depthwise_fn OF[][2] = {{depthwise_3_1, depthwise_3_2}, {depthwise_5_1, depthwise_5_2}, {depthwise_7_1, depthwise_7_2}};
    if (kernel_h != kernel_w || kernel_w < 3 || kernel_w > 7 || !(kernel_w % 2) || step > 2) return NULL;
    return OF[kernel_w / 2 - 1][step - 1];
}

/* Computes a vector of channels of one pixel, with any kernel. */
static void depthwise_pixel(const Op *op, const Depthwise *d, const float *x, const float *w, vec bias, float *y) {
    vec acc = bias;
    for (int ky = 0; ky < op->kernel_h; ky++)
        for (int kx = 0; kx < op->kernel_w; kx++, w += VL)
            acc += *(const vec *)(x + (int64_t)ky * d->line + (int64_t)kx * d->stride) * *(const vec *)w;
    *(vec *)y = acc;
}

/* A vector of channels of a row of pixels. The last tile is moved back so that it ends with the row. */
static void depthwise_row(const Op *op, const Depthwise *d, const float *x, const float *w, vec bias, float *y) {
    const depthwise_fn tile = op->y.width < DP ? NULL : depthwise_of(op->kernel_h, op->kernel_w, op->step);
    const int64_t step = (int64_t)op->step * d->stride;
    if (!tile)
        for (int column = 0; column < op->y.width; column++)
            depthwise_pixel(op, d, x + column * step, w, bias, y + (int64_t)column * op->y.stride);
    else
        for (int at = 0; at < op->y.width; at += DP) {
            const int column = at + DP <= op->y.width ? at : op->y.width - DP;
            tile(d, x + column * step, w, bias, y + (int64_t)column * op->y.stride, op->y.stride);
        }
}

static void finish_row(const Op *op, const State *s, int64_t row, int channels) {
    const float *residual = s->arena + op->residual.offset + row * op->residual.line;
    float *y = s->arena + op->y.offset + row * op->y.line;
    for (int column = 0; column < op->y.width; column++, y += op->y.stride, residual += op->residual.stride) {
        if (op->has_residual)
            for (int i = 0; i < channels; i += VL) *(vec *)(y + i) += *(const vec *)(residual + i);
        if (op->activation) ACTIVATION_OF[op->activation](y, y, channels);
    }
}

static void depthwise_rows(const Op *op, const State *s, const Depthwise *d, int member, int members) {
    const int taps = op->kernel_h * op->kernel_w;
    int64_t from, to;
    share(op->y.height, member, members, &from, &to);
    for (int64_t row = from; row < to; row++) {
        const float *x = d->x + row * op->step * d->line;
        float *y = s->arena + op->y.offset + row * op->y.line;
        for (int i = 0; i < d->channels; i += VL)
            depthwise_row(op, d, x + i, d->weight + (int64_t)i * taps, *(const vec *)(d->bias + i), y + i);
        finish_row(op, s, row, d->channels);
    }
}

/* Pack weights and biases of the n kept channels; the rest of the last vector are zeros. */
static void pack_depthwise(const Op *op, const int32_t *kept, int n, int member, int members, float *weight, float *bias) {
    const int taps = op->kernel_h * op->kernel_w;
    int64_t from, to;
    share((n + VL - 1) / VL, member, members, &from, &to);
    for (int64_t j = from * VL; j < to * VL; j++) {
        float *w = weight + j / VL * taps * VL + j % VL;
        const int channel = j < n ? kept[j] : 0;
        const float *of = op->weight + (int64_t)(channel / VL) * taps * VL + channel % VL;
        for (int tap = 0; tap < taps; tap++) w[tap * VL] = j < n ? of[tap * VL] : 0;
        bias[j] = j < n ? op->bias[channel] : 0;
    }
}

/* Pack the n kept channels of x, with its border, for some rows. */
static void pack_pixels(const Op *op, const State *s, const int32_t *kept, int n, int member, int members, float *packed) {
    const int height = op->x.height + 2 * op->pad_h, width = op->x.width + 2 * op->pad_w, padded = (n + VL - 1) / VL * VL;
    const float *x = s->arena + op->x.offset - (int64_t)op->pad_h * op->x.line - (int64_t)op->pad_w * op->x.stride;
    int64_t from, to;
    share(height, member, members, &from, &to);
    for (int64_t row = from; row < to; row++)
        for (int column = 0; column < width; column++) {
            const float *of = x + row * op->x.line + (int64_t)column * op->x.stride;
            float *y = packed + (row * width + column) * padded;
            for (int j = 0; j < n; j++) y[j] = of[kept[j]];
            for (int j = n; j < padded; j++) y[j] = 0;
        }
}

static void depthwise(const Op *op, State *s, int member, Team *team) {
    const int taps = op->kernel_h * op->kernel_w, all_channels = op->y.channels;
    const int n = count_of(s, op->out_site, all_channels), padded = (n + VL - 1) / VL * VL;
    Depthwise d = {s->arena + op->x.offset - (int64_t)op->pad_h * op->x.line - (int64_t)op->pad_w * op->x.stride, op->x.line,
                   op->x.stride, op->weight, op->bias, padded};
    if (n < all_channels) {
        const int32_t *kept = kept_of(s, op->out_site);
        float *weight = s->scratch, *bias = weight + (int64_t)padded * taps, *pixels = bias + padded;
        pack_depthwise(op, kept, n, member, team->members, weight, bias);
        d.weight = weight, d.bias = bias;
        if (op->in_site < 0) {
            pack_pixels(op, s, kept, n, member, team->members, pixels);
            d.x = pixels, d.stride = padded, d.line = (op->x.width + 2 * op->pad_w) * padded;
        }
        barrier(team);
    }
    depthwise_rows(op, s, &d, member, team->members);
}

#endif
