/* The decision of a gate, in float32, by the means of what it decides on. */
#ifndef SSL_DC_INT8_GATE_H
#define SSL_DC_INT8_GATE_H

#include "int8_layout.h"
#include "int8_means.h"
#include "lanes.h"

DEFINE_SUMS(float_sums_of, fvec)

/* The product of a row of n floats with a vector, n a multiple of VECTOR: VECTOR partial sums, halved to VL. */
INLINE fvec products(const float *row, const float *vector, int n) {
    fvec acc[VECTOR / VL];
    for (int k = 0; k < VECTOR / VL; k++) acc[k] = (fvec){0};
    for (int i = 0; i < n; i += VECTOR)
        for (int k = 0; k < VECTOR / VL; k++) acc[k] += *(const fvec *)(row + i + k * VL) * *(const fvec *)(vector + i + k * VL);
    for (int half = VECTOR / VL / 2; half; half /= 2)
        for (int k = 0; k < half; k++) acc[k] += acc[k + half];
    return acc[0];
}

/* Multiply a matrix (rows, n) with a vector, and add a bias: VL rows at once. The partial sums of a row are always halved in the same
 * order, whatever the processor. Of the rows past the end the last one is computed again. */
static void layer(const float *weight, const float *bias, const float *vector, int rows, int n, float *out) {
    for (int first = 0; first < rows; first += VL) {
        fvec partial[VL];
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) {
            int row = first + LANE[i] < rows ? first + LANE[i] : rows - 1;
            partial[i] = products(weight + (int64_t)row * n, vector, n);
        }
        fvec sums = float_sums_of(partial);
        for (int i = 0; i < VL && first + i < rows; i++) out[first + i] = bias[first + i] + sums[i];
    }
}

/* Decide the mask of a gate: an entry is open where bias2 + weight2 . relu(bias + weight . mean) >= 0. */
static void decide(const Op *op, State *s) {
    const Site *site = s->sites + op->site;
    const int units = padded(op->hidden, VECTOR);
    float *mean = (float *)partial_sums(op, s, op->x.fine ? 2 : 1), *hidden = mean + op->x.stride, *logits = hidden + units;
    means(op, s, mean, op->x.stride);
    layer((const float *)op->weight, op->bias, mean, op->hidden, op->x.stride, hidden);
    for (int h = 0; h < op->hidden; h++) hidden[h] = hidden[h] < 0 ? 0 : hidden[h];
    for (int h = op->hidden; h < units; h++) hidden[h] = 0;
    layer(op->weight2, op->bias2, hidden, site->channels, units, logits);
    int count = 0;
    for (int c = 0; c < site->channels; c++)
        if (logits[c] >= 0) s->kept[site->first + count++] = c;
    s->count[op->site] = count;
}

#endif
