/* The decision of a gate, in float32, by the means of what it decides on. */
#ifndef SSL_DC_GATE_H
#define SSL_DC_GATE_H

INLINE float relu_one(float v) { return v < 0 ? 0 : v; }

static float dot(const float *a, const float *b, int n) { /* n: a multiple of VL */
    vec acc[2] = {{0}, {0}};
    int i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        acc[0] += *(const vec *)(a + i) * *(const vec *)(b + i);
        acc[1] += *(const vec *)(a + i + VL) * *(const vec *)(b + i + VL);
    }
    for (; i < n; i += VL) acc[0] += *(const vec *)(a + i) * *(const vec *)(b + i);
    return sum_of(acc[0] + acc[1]);
}

/* Decide the mask of a gate: an entry is open where bias2 + weight2 . relu(bias + weight . mean) >= 0. */
static void decide(const Op *op, State *s) {
    float *mean = s->scratch + (int64_t)PARTS * op->x.stride, *hidden = mean + op->x.stride;
    int padded = (op->hidden + VECTOR - 1) / VECTOR * VECTOR, inputs = (op->x.channels + VECTOR - 1) / VECTOR * VECTOR;
    const float *weight = (const float *)op->weight, *weight2 = (const float *)op->weight2;
    means(op, s, mean);
    for (int h = 0; h < op->hidden; h++)
        hidden[h] = relu_one(op->bias[h] + dot(weight + (int64_t)h * inputs, mean, inputs));
    for (int h = op->hidden; h < padded; h++) hidden[h] = 0;
    const Site *site = s->sites + op->site;
    int count = 0;
    for (int c = 0; c < site->channels; c++)
        if (op->bias2[c] + dot(weight2 + (int64_t)c * padded, hidden, padded) >= 0) s->kept[site->first + count++] = c;
    s->count[op->site] = count;
    widen(s, op->site);
}

#endif
