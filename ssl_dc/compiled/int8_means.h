/* Means over the pixels, by sums of integers, which are exact. */
#ifndef SSL_DC_INT8_MEANS_H
#define SSL_DC_INT8_MEANS_H

#include "int8_codes.h"

#define CHANNELS 16 /* summed at once */
typedef uint16_t wide __attribute__((vector_size(2 * CHANNELS), aligned(2), may_alias));
typedef int32_t wider __attribute__((vector_size(4 * CHANNELS), aligned(4), may_alias));
#define PIXELS_IN_16_BITS 257 /* 257 * 255 is the largest number of 16 bits */

/* Sum one of PARTS parts of the rows of x, for each channel; x points to the first code, or to the first fine byte. */
static void sum_part(const Op *op, const uint8_t *x, int part, int32_t *total) {
    memset(total, 0, sizeof(int32_t) * op->x.stride);
    int64_t first, last;
    share(op->x.height, part, PARTS, &first, &last);
    for (int64_t row = first; row < last; row++)
        for (int start = 0; start < op->x.width; start += PIXELS_IN_16_BITS) {
            int end = start + PIXELS_IN_16_BITS < op->x.width ? start + PIXELS_IN_16_BITS : op->x.width;
            for (int i = 0; i < op->x.stride; i += CHANNELS) {
                const uint8_t *pixels = x + row * op->x.line + i;
                wide sum = {0};
                for (int column = start; column < end; column++)
                    sum += __builtin_convertvector(*(const narrow *)(pixels + (int64_t)column * op->x.stride), wide);
                *(wider *)(total + i) += __builtin_convertvector(sum, wider);
            }
        }
}

/* The scratch of an operation that takes means: PARTS partial sums of the codes, then those of the fine bytes if there are any. */
static int32_t *partial_sums(const Op *op, const State *s, int fine) {
    return (int32_t *)s->scratch + (int64_t)fine * PARTS * op->x.stride;
}

/* Sum the codes of each channel over the pixels, and the fine bytes if there are any. */
static void sums(const Op *op, const State *s, int member, int members) {
    const uint8_t *x = s->arena + op->x.offset;
    int64_t from, to;
    share(PARTS, member, members, &from, &to);
    for (int64_t part = from; part < to; part++) {
        sum_part(op, x, (int)part, partial_sums(op, s, 0) + part * op->x.stride);
        if (op->x.fine) sum_part(op, x + op->x.fine, (int)part, partial_sums(op, s, 1) + part * op->x.stride);
    }
}

static void add_parts(int32_t *partial, int stride) {
    for (int part = 1; part < PARTS; part++)
        for (int c = 0; c < stride; c++) partial[c] += partial[part * stride + c];
}

/* The means of n channels, given the partial sums, which are added up. */
static void means(const Op *op, const State *s, float *mean, int n) {
    const int32_t pixels = op->x.height * op->x.width, zeros = op->x_zero * pixels, no_loss = NO_LOSS * pixels;
    const float *scale = op->scale;
    int32_t *codes = partial_sums(op, s, 0), *fine = partial_sums(op, s, 1);
    add_parts(codes, op->x.stride);
    for (int c = 0; c < n; c++) mean[c] = (float)(codes[c] - zeros);
    if (op->x.fine) {
        add_parts(fine, op->x.stride);
        for (int c = 0; c < n; c++) mean[c] += (float)(fine[c] - no_loss) * (1.0f / OF_STEP);
    }
    for (int c = 0; c < n; c++) mean[c] *= scale[c];
}

#endif
