/* Grouped convolutions: the outputs of a group are columns over the inputs of that group.
 *
 * The outputs of a group fill whole vectors with zeros, so they are computed beside y, and copied.
 */
#ifndef SSL_DC_GROUPED_H
#define SSL_DC_GROUPED_H

/* Computes one group of a tile of pixels. x points to the first tap of each pixel, w to the weights of the group. */
static void group_tile(const Op *op, const float *const *x, const Taps *taps, const float *w, int pixels, int group, float *const *y) {
    const int outputs = op->group_outputs, vectors = (outputs + VL - 1) / VL;
    float whole[MOST_PIXELS][BLOCK];
    float *to[MOST_PIXELS];
    for (int p = 0; p < MOST_PIXELS; p++) to[p] = whole[p];
    columns_of(pixels, vectors)(x, taps, w, op->bias + group * vectors * VL, to, NULL, op->activation == RELU);
    for (int p = 0; p < pixels; p++) {
        if (op->activation > RELU) ACTIVATION_OF[op->activation](whole[p], whole[p], outputs);
        memcpy(y[p], whole[p], sizeof(float) * outputs);
    }
}

/* A mask picks whole groups; x has the same ones, or all. */
static void grouped(const Op *op, const State *s, int member, int members) {
    const int outputs = op->group_outputs, n = count_of(s, op->out_site, op->y.channels), padded = (n + VL - 1) / VL * VL;
    const int vectors = (outputs + VL - 1) / VL, pixels = op->y.height * op->y.width, most = pixels_at_once(vectors);
    const int32_t *kept = kept_of(s, op->out_site);
    const int all_taps = op->group_inputs * op->kernel_h * op->kernel_w;
    int32_t taps_at[all_taps], taps_from[all_taps];
    const Taps taps = list_taps(op, NULL, op->group_inputs, vectors * VL, taps_at, taps_from);
    int64_t from, to;
    share((pixels + most - 1) / most, member, members, &from, &to);
    for (int64_t tile = from; tile < to; tile++) {
        const int first = (int)tile * most, left = pixels - first < most ? pixels - first : most;
        const float *start[MOST_PIXELS], *x[MOST_PIXELS];
        float *y[MOST_PIXELS];
        pixels_at(op, s, most, first, start, y);
        for (int j = 0; j < n; j += outputs) {
            const int group = (kept ? kept[j] : j) / outputs, at = op->in_site < 0 ? group : j / outputs;
            for (int p = 0; p < most; p++) x[p] = start[p] + at * op->group_inputs;
            group_tile(op, x, &taps, op->weight + group * all_taps * vectors * VL, left, group, y);
            for (int p = 0; p < left; p++) y[p] += outputs;
        }
        for (int p = 0; p < left; p++) memset(y[p], 0, sizeof(float) * (padded - n));
    }
}

#endif
