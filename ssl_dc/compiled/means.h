/* Means over the pixels. */
#ifndef SSL_DC_MEANS_H
#define SSL_DC_MEANS_H

/* Channels of x that are present, padded to whole vectors. */
static int present(const Op *op, const State *s) {
    return (count_of(s, op->in_site, op->x.channels) + VECTOR - 1) / VECTOR * VECTOR;
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
            const Element *x = s->arena + op->x.offset + row * op->x.line;
            for (int i = 0; i < channels; i += VL * 4) {
                int vectors = (channels - i) / VL < 4 ? (channels - i) / VL : 4;
                vec acc[4] = {{0}, {0}, {0}, {0}};
                for (int column = 0; column < op->x.width; column++)
                    for (int v = 0; v < vectors; v++) acc[v] += numbers_at(x + (int64_t)column * op->x.stride + i + v * VL);
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

#endif
