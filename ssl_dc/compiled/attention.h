/* Softmax attention of the open heads, whose channels are side by side in x (queries), residual (keys), z (values) and y.
 *
 * The products of queries and keys are rows: a key is a row of weights. The sums of values are columns: a value is an input.
 */
#ifndef SSL_DC_ATTENTION_H
#define SSL_DC_ATTENTION_H

/* Where a head of a token is. */
INLINE float *head_of(const Activation *a, const State *s, int64_t token, int64_t head, int span) {
    return s->arena + a->offset + token * a->line + head * span;
}

/* scores[q][k] = query . key, for n queries; `width` floats lie from a query's scores to the next ones. */
static void score(const Op *op, const State *s, int head, int first, int n, float *scores, int width) {
    const int keys = op->residual.height, blocks = passes(keys), most = (keys + blocks - 1) / blocks, P = PIXELS_WITH[most];
    int32_t vectors[op->head / VL];
    for (int i = 0; i < op->head / VL; i++) vectors[i] = i * VL;
    const Rows c = {vectors, op->head / VL, NONE};
    const float zeros[MAX_ROWS] = {0};
    const float *x[MAX_PIXELS], *w[MAX_ROWS];
    float *y[MAX_PIXELS];
    for (int block = 0; block < blocks; block++) {
        const int from = keys * block / blocks, to = keys * (block + 1) / blocks;
        for (int k = from; k < to; k++) w[k - from] = head_of(&op->residual, s, k, head, op->spans[1]);
        for (int q = 0; q < n; q += P) {
            for (int p = 0; p < P; p++) {
                const int at = q + p < n ? q + p : n - 1;
                x[p] = head_of(&op->x, s, first + at, head, op->spans[0]);
                y[p] = scores + (int64_t)at * width + from;
            }
            ROWS_OF[most][to - from == most](x, w, zeros, &c, y);
        }
    }
}

/* Turn n scores into weights: exp(scale * (score - largest)) over their sum. The rest of the last vector becomes 0. */
static void softmax(float *v, int n, float scale) {
    const int whole = n / VL * VL;
    float largest = v[0];
    for (int i = 1; i < n; i++) largest = v[i] > largest ? v[i] : largest;
    vec total = {0};
    for (int i = 0; i < n; i += VL) {
        vec e = exp_vec((*(const vec *)(v + i) - largest) * scale);
        if (i == whole) e = (vec)((ivec)e & lanes_below(n - whole));
        *(vec *)(v + i) = e;
        total += e;
    }
    const float share_of_one = 1.0f / sum_of(total);
    for (int i = 0; i < n; i += VL) *(vec *)(v + i) *= share_of_one;
}

/* The sums of the values, weighted by the scores, for n queries. */
static void average(const Op *op, const State *s, int head, int first, int n, const float *scores, int width) {
    static const float zeros[BLOCK] = {0};
    const int vectors = op->value_head / VL, tokens = op->z.height;
    int32_t at[tokens], from[tokens];
    for (int token = 0; token < tokens; token++) at[token] = token, from[token] = token * op->z.line * (int)sizeof(float);
    const Taps list = {at, from, 0, tokens, 0};
    for (int v = 0; v < vectors; v += NV) {
        const float *values = head_of(&op->z, s, 0, head, op->spans[2]) + v * VL;
        for (int q = 0; q < n; q += CP) {
            const float *x[CP];
            float *y[CP];
            for (int p = 0; p < CP; p++) {
                const int at = q + p < n ? q + p : n - 1;
                x[p] = scores + (int64_t)at * width;
                y[p] = head_of(&op->y, s, first + at, head, op->value_head) + v * VL;
            }
            columns_of(n - q < CP ? n - q : CP, vectors - v < NV ? vectors - v : NV)(x, &list, values, zeros, y, NULL, 0);
        }
    }
}

static void attention(const Op *op, const State *s, int member, int members) {
    const int heads = count_of(s, op->in_site, op->heads), keys = op->residual.height, queries = op->y.height;
    const int width = (keys + VL - 1) / VL * VL, tiles = (queries + QUERIES - 1) / QUERIES;
    float *scores = s->scratch + (int64_t)member * QUERIES * width;
    int64_t from, to;
    share((int64_t)heads * tiles, member, members, &from, &to);
    for (int64_t item = from; item < to; item++) {
        const int head = (int)(item / tiles), first = (int)(item % tiles) * QUERIES;
        const int n = queries - first < QUERIES ? queries - first : QUERIES;
        score(op, s, head, first, n, scores, width);
        for (int q = 0; q < n; q++) softmax(scores + (int64_t)q * width, keys, op->scale_of_scores);
        average(op, s, head, first, n, scores, width);
    }
}

#endif
