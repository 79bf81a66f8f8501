/* Convolutions that pick outputs: as rows, packed as columns, or some as each, whichever is fastest for this image. */
#ifndef SSL_DC_PICKED_H
#define SSL_DC_PICKED_H

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
            if (!tap) bias[j] = j < n ? op->bias[kept[j]] : 0;
        }
        for (int i = 0; i < inputs; i += VL) {
            vec block[VL];
            for (int lane = 0; lane < VL; lane++) block[lane] = row[lane] ? *(const vec *)(row[lane] + i) : (vec){0};
            transpose(block);
            for (int k = 0; k < VL && i + k < inputs; k++) *(vec *)(w + (int64_t)(i + k) * taps * width * VL) = block[k];
        }
    }
}

/* How long a convolution with n kept outputs takes if the first m of them are computed as columns. Counted in products of vectors, as
 * measured with AVX2: a tap of a tile of columns takes a tenth longer than its products, a step of rows a quarter; the sum over the
 * lanes at the end of each dot product takes SUM, to pack a weight PACK. */
#define SUM 20
#define PACK 1
static int64_t time_with(const Op *op, int n, int m) {
    const int64_t length = (int64_t)op->x.channels * op->kernel_h * op->kernel_w, vectors = (m + VL - 1) / VL;
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
        float *weight = s->scratch, *bias = weight + (int64_t)((m + VL - 1) / VL * VL) * op->x.channels * op->kernel_h * op->kernel_w;
        pack_columns(op, kept_of(s, op->out_site), m, member, team->members, weight, bias);
        barrier(team);
        columns(op, s, member, team->members, (Block){weight, bias, m});
    }
    if (m < n) rows(op, s, member, team->members, NULL, (op->x.channels + VL - 1) / VL * VL, m);
}

#endif
