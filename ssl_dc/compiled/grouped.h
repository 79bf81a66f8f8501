/* Grouped convolutions: the outputs of a group are columns over the inputs of that group.
 *
 * The outputs of a group fill whole vectors with zeros, so they are computed beside y, and copied.
 */
#ifndef SSL_DC_GROUPED_H
#define SSL_DC_GROUPED_H

/* Computes one group of a tile of pixels. x points to the first tap of each pixel, c->w to the weights of the group. */
static void group_tile(const Op *op, const float *const *x, const Columns *c, int pixels, int at_once, int group, float *const *y) {
    const int outputs = op->group_outputs, vectors = (outputs + VL - 1) / VL;
    float whole[2 * CP][BLOCK];
    float *to[2 * CP];
    for (int p = 0; p < at_once * CP; p++) to[p] = whole[p];
    COLUMNS_OF[pixels == 1 ? 0 : at_once][vectors](x, c, op->bias + group * vectors * VL, to, NULL, op->activation == RELU);
    for (int p = 0; p < pixels; p++) {
        if (op->activation > RELU) ACTIVATION_OF[op->activation](whole[p], whole[p], outputs);
        memcpy(y[p], whole[p], sizeof(float) * outputs);
    }
}

/* A mask picks whole groups; x has the same ones, or all. */
static void grouped(const Op *op, const State *s, int member, int members) {
    const int outputs = op->group_outputs, n = count_of(s, op->out_site, op->y.channels), padded = (n + VL - 1) / VL * VL;
    const int pixels = op->y.height * op->y.width, at_once = tiles_at_once((outputs + VL - 1) / VL), most = at_once * CP;
    const int32_t *kept = kept_of(s, op->out_site);
    const int all_taps = op->group_inputs * op->kernel_h * op->kernel_w;
    int32_t taps_at[all_taps], taps_from[all_taps];
    Columns c = {NULL, taps_at, taps_from, list_taps(op, NULL, op->group_inputs, taps_at, taps_from),
                 (outputs + VL - 1) / VL * VL};
    int64_t from, to;
    share((pixels + most - 1) / most, member, members, &from, &to);
    for (int64_t tile = from; tile < to; tile++) {
        const int first = (int)tile * most, left = pixels - first < most ? pixels - first : most;
        const float *start[2 * CP], *x[2 * CP];
        float *y[2 * CP];
        pixels_at(op, s, most, first, start, y);
        for (int j = 0; j < n; j += outputs) {
            const int group = (kept ? kept[j] : j) / outputs, at = op->in_site < 0 ? group : j / outputs;
            for (int p = 0; p < most; p++) x[p] = start[p] + at * op->group_inputs;
            c.w = op->weight + group * all_taps * c.step;
            group_tile(op, x, &c, left, at_once, group, y);
            for (int p = 0; p < left; p++) y[p] += outputs;
        }
        for (int p = 0; p < left; p++) memset(y[p], 0, sizeof(float) * (padded - n));
    }
}

#endif
