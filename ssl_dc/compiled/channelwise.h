/* Operations on pixels that do not convolve: sums, products, activations and layer norms. */
#ifndef SSL_DC_CHANNELWISE_H
#define SSL_DC_CHANNELWISE_H

INLINE const float *pixel_of(const Activation *a, const State *s, int64_t row, int column) {
    return s->arena + a->offset + row * a->line + (int64_t)column * a->stride;
}

/* Channels of x that are present, padded to whole vectors. */
static int present(const Op *op, const State *s) { return (count_of(s, op->in_site, op->x.channels) + VL - 1) / VL * VL; }

/* y = activation(x), pixel by pixel; y may have other rows than x, as tokens have. */
static void activate(const Op *op, const State *s, int member, int members) {
    const int n = present(op, s);
    int64_t from, to;
    share((int64_t)op->y.height * op->y.width, member, members, &from, &to);
    for (int64_t i = from; i < to; i++)
        ACTIVATION_OF[op->activation](pixel_of(&op->x, s, i / op->x.width, (int)(i % op->x.width)),
                                      (float *)pixel_of(&op->y, s, i / op->y.width, (int)(i % op->y.width)), n);
}

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

/* 1 / sqrt(x) by Newton's method, which needs no library; NaN if x is not finite. */
static float reciprocal_root(double x) {
    int64_t bits;
    double y;
    memcpy(&bits, &x, sizeof x);
    bits = 0x5fe6eb50c7b537a9 - (bits >> 1);
    memcpy(&y, &bits, sizeof y);
    for (int i = 0; i < 4; i++) y *= 1.5 - 0.5 * x * y * y;
    return (float)y;
}

/* v in the lanes that are below n, else 0 */
INLINE vec first_lanes(vec v, int n) {
    int32_t inside[VL];
    for (int lane = 0; lane < VL; lane++) inside[lane] = lane < n ? -1 : 0;
    ivec mask;
    memcpy(&mask, inside, sizeof mask);
    return (vec)((ivec)v & mask);
}

static void normalise(const float *x, float *y, int channels, const float *weight, const float *bias, float eps) {
    const int whole = channels / VL * VL, rest = channels - whole;
    vec total = {0}, squares = {0};
    for (int i = 0; i < whole; i += VL) total += *(const vec *)(x + i);
    if (rest) total += first_lanes(*(const vec *)(x + whole), rest);
    const vec mean = all(sum_of(total) / (float)channels);
    for (int i = 0; i < whole; i += VL) {
        const vec v = *(const vec *)(x + i) - mean;
        squares += v * v;
    }
    if (rest) {
        const vec v = first_lanes(*(const vec *)(x + whole) - mean, rest);
        squares += v * v;
    }
    const float scale = reciprocal_root(sum_of(squares) / (float)channels + eps);
    for (int i = 0; i < channels; i += VL)
        *(vec *)(y + i) = (*(const vec *)(x + i) - mean) * scale * *(const vec *)(weight + i) + *(const vec *)(bias + i);
}

static void layer_norm(const Op *op, const State *s, int member, int members) {
    int64_t from, to;
    share(op->y.height, member, members, &from, &to);
    for (int64_t row = from; row < to; row++)
        for (int column = 0; column < op->y.width; column++)
            normalise(pixel_of(&op->x, s, row, column), (float *)pixel_of(&op->y, s, row, column), op->x.channels, op->weight,
                      op->bias, op->eps);
}

#endif
