/* Convolutions that pick outputs: as rows, packed as columns, or some as each, whichever is fastest for this image. */
#ifndef SSL_DC_PICKED_H
#define SSL_DC_PICKED_H

/* Pack the weights of the n kept outputs, which lie as rows, as columns, and their biases. The rest of the last vector are zeros. */
static void pack_columns(const Op *op, const int32_t *kept, int n, int member, int members, Weight *weight, float *bias) {
    const int taps = op->kernel_h * op->kernel_w, lanes = (op->x.channels + DEPTH - 1) / DEPTH;
    const int depth = (op->x.channels + VECTOR - 1) / VECTOR * VECTOR;
    const int vectors = (n + VL - 1) / VL;
    int64_t from, to;
    share((int64_t)vectors * taps, member, members, &from, &to);
    for (int64_t item = from; item < to; item++) {
        const int v = (int)item / taps, tap = (int)item % taps, first = v / NV * NV, width = vectors - first < NV ? vectors - first : NV;
        Weight *w = weight + ((int64_t)first * lanes * taps + (int64_t)tap * width + v - first) * VECTOR;
        const Weight *row[VL];
        for (int lane = 0; lane < VL; lane++) {
            const int j = v * VL + lane;
            row[lane] = j < n ? op->weight + ((int64_t)kept[j] * taps + tap) * depth : NULL;
            if (!tap) bias[j] = j < n ? op->bias[kept[j]] : 0;
        }
        for (int i = 0; i < lanes; i += VL) {
            vec block[VL]; /* of lanes, whatever these hold */
            for (int lane = 0; lane < VL; lane++) block[lane] = row[lane] ? *(const vec *)(row[lane] + i * DEPTH) : (vec){0};
            transpose(block);
            for (int k = 0; k < VL && i + k < lanes; k++) *(vec *)(w + (int64_t)(i + k) * taps * width * VECTOR) = block[k];
        }
    }
}

/* How long a convolution with n kept outputs takes if the first m of them are computed as columns. Counted in products of vectors, as
 * measured with AVX2: a tap of a tile of columns takes a tenth longer than its products, a step of rows a quarter; the sum over the
 * lanes at the end of each dot product takes SUM, to pack a weight PACK. */
#define SUM 20
#define PACK 1
static int64_t time_with(const Op *op, int n, int m) {
    const int64_t length = (int64_t)((op->x.channels + DEPTH - 1) / DEPTH) * op->kernel_h * op->kernel_w, vectors = (m + VL - 1) / VL;
    const int64_t pixels = (int64_t)op->y.height * op->y.width;
    return (vectors * length * 11 / 10 + (n - m) * (length / VL * 5 / 4 + SUM)) * pixels + PACK * m * length;
}

/* How many of n kept outputs are computed as columns: all, none, or those that fill whole vectors. */
static int as_columns(const Op *op, int n) {
    const int whole = n / VL * VL, most = time_with(op, n, n) < time_with(op, n, whole) ? n : whole;
    return time_with(op, n, most) < time_with(op, n, 0) ? most : 0;
}

static void columns_of_outputs(const Op *op, State *s, int member, Team *team) {
    const int n = s->count[op->out_site], m = as_columns(op, n);
    if (m) {
        const int lanes = (op->x.channels + DEPTH - 1) / DEPTH;
        float *bias = s->scratch;
        Weight *weight = (Weight *)(bias + (m + VL - 1) / VL * VL);
        pack_columns(op, kept_of(s, op->out_site), m, member, team->members, weight, bias);
        barrier(team);
        const int written = m < n ? m : (n + VECTOR - 1) / VECTOR * VECTOR;
        columns(op, s, member, team->members, (Block){weight, bias, 0, m, written, lanes, NULL, lanes});
    }
    if (m < n) rows(op, s, member, team->members, NULL, (op->x.channels + VECTOR - 1) / VECTOR * VECTOR, m);
}

#endif
