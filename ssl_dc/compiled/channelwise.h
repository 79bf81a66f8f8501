/* Operations on pixels that do not convolve: sums, products and layer norms. */
#ifndef SSL_DC_CHANNELWISE_H
#define SSL_DC_CHANNELWISE_H

/* y = x + residual */
static void add(const Op *op, const State *s, int member, int members) {
    const int n = present(op, s);
    int64_t from, to;
    share(op->y.height, member, members, &from, &to);
    for (int64_t row = from; row < to; row++)
        for (int column = 0; column < op->y.width; column++) {
            const float *x = pixel_of(&op->x, s, row, column), *residual = pixel_of(&op->residual, s, row, column);
            float *y = (float *)pixel_of(&op->y, s, row, column);
            for (int i = 0; i < n; i += VL) *(vec *)(y + i) = *(const vec *)(x + i) + *(const vec *)(residual + i);
        }
}

/* y = x * factor: a constant of each channel, or that of the single pixel of the residual */
static void multiply(const Op *op, const State *s, int member, int members) {
    const int n = present(op, s);
    const float *factor = op->has_residual ? s->arena + op->residual.offset : op->weight;
    int64_t from, to;
    share(op->y.height, member, members, &from, &to);
    for (int64_t row = from; row < to; row++)
        for (int column = 0; column < op->y.width; column++) {
            const float *x = pixel_of(&op->x, s, row, column);
            float *y = (float *)pixel_of(&op->y, s, row, column);
            for (int i = 0; i < n; i += VL) *(vec *)(y + i) = *(const vec *)(x + i) * *(const vec *)(factor + i);
        }
}

/* 1 / sqrt(v) of positive numbers, to 2 units in the last place: a guess from the bits and three steps of Newton's method */
INLINE vec reciprocal_root(vec v) {
    vec y = (vec)(0x5f375a86u - ((uvec)v >> 1));
    for (int i = 0; i < 3; i++) y *= 1.5f - 0.5f * v * y * y;
    return y;
}

/* A mask of the lanes that are below n */
static ivec lanes_below(int n) {
    int32_t inside[VL];
    for (int lane = 0; lane < VL; lane++) inside[lane] = lane < n ? -1 : 0;
    ivec mask;
    memcpy(&mask, inside, sizeof mask);
    return mask;
}

/* Sums over the channels of up to VL pixels: of x - mean, or of its square. The sum of pixel p is in lane LANE[p]. */
INLINE vec sums_over(const float *const *x, int pixels, int channels, const float *mean, int squared) {
    const ivec last = lanes_below((channels - 1) % VL + 1), every = lanes_below(VL);
    vec total[VL];
    for (int p = 0; p < VL; p++) {
        total[p] = (vec){0};
        if (p >= pixels) continue;
        for (int i = 0; i < channels; i += VL) {
            const ivec inside = i + VL < channels ? every : last;
            const vec v = (vec)((ivec)(*(const vec *)(x[p] + i) - mean[LANE[p]]) & inside);
            if (squared) total[p] += v * v;
            else total[p] += v;
        }
    }
    return sums_of(total);
}

/* Normalise up to VL pixels over their channels. */
static void normalise(const Op *op, const float *const *x, float *const *y, int pixels) {
    const int channels = op->x.channels;
    const float each = 1.0f / (float)channels;
    float mean[VL] = {0}, scale[VL];
    *(vec *)mean = sums_over(x, pixels, channels, mean, 0) * each;
    *(vec *)scale = reciprocal_root(sums_over(x, pixels, channels, mean, 1) * each + op->eps);
    for (int p = 0; p < pixels; p++)
        for (int i = 0; i < channels; i += VL)
            *(vec *)(y[p] + i) = (*(const vec *)(x[p] + i) - mean[LANE[p]]) * scale[LANE[p]] * *(const vec *)(op->weight + i) +
                                 *(const vec *)(op->bias + i);
}

static void layer_norm(const Op *op, const State *s, int member, int members) {
    const int pixels = op->y.height * op->y.width;
    int64_t from, to;
    share(pixels, member, members, &from, &to);
    for (int64_t first = from; first < to; first += VL) {
        const int n = to - first < VL ? (int)(to - first) : VL;
        const float *x[VL];
        float *y[VL];
        for (int p = 0; p < n; p++) {
            const int64_t row = (first + p) / op->y.width;
            const int column = (int)((first + p) % op->y.width);
            x[p] = pixel_of(&op->x, s, row, column), y[p] = (float *)pixel_of(&op->y, s, row, column);
        }
        normalise(op, x, y, n);
    }
}

#endif
