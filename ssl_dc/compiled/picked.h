/* Convolutions that pick outputs: as rows, or packed as columns, whichever is faster for this image. */
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

#endif
