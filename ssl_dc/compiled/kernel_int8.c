/* Runs a plan in int8, image by image, and computes only what the masks keep.
 *
 * An activation holds codes: bytes from 0 to 255. The value of a code is (code - zero) * step; the zero belongs to the activation, and
 * there is a step for each channel. Weights are bytes from -127 to 127 at most (int8_dot.h), with a step for each output. A sum of
 * products is exact, in 32 bits. Then
 *
 *   code = round(clamp(sum * scale + bias + residual * residual_scale, low, 255))     round to even, each operation in float32
 *
 * which is the bias, the residual and the ReLU in one. So every result is the same bit by bit on every processor: this file must be
 * compiled with -ffp-contract=off.
 *
 * An activation that is more than the input of convolutions has 16 bits for each element, the number
 *
 *   round(256 * clamp(...)) + 128        with the same clamp(...) as above
 *
 * Its upper byte is the code, which convolutions read. The lower byte, the fine byte, lies elsewhere. Residuals, means and copies
 * read the number. scale, bias and low are for codes; residual_scale is for the numbers of the residual.
 *
 * An activation is laid out as (row, column, channel). It has a border of zeros (of the code of 0), as wide as the widest padding of
 * the operations that read it. The channels of a pixel are padded to a multiple of 16; a pixel of the input images has 4 channels. A
 * channel-gated activation holds only its kept channels, side by side. There are two ways to convolve:
 *
 *   rows     the kept outputs as dot products; the weights of an output lie together, and are not copied (int8_rows.h)
 *   columns  16 outputs in a vector of sums, to each of which 4 products are added at once; the weights of 4 inputs are side by
 *            side (int8_columns.h)
 *
 * Masks pick other inputs for each image. So a convolution that picks inputs first packs the kept weights for columns
 * (int8_packing.h).
 */
#define _GNU_SOURCE
#include <stdint.h>

#include "int8_layout.h"
#include "int8_codes.h"
#include "int8_gate.h"
#include "int8_maxpool.h"
#include "int8_packing.h"

/* Copy x to y, whose codes may have other steps and another zero. */
static void copy(const Op *op, const State *s, int member, int members) {
    int64_t from, to;
    share(op->y.height, member, members, &from, &to);
    for (int64_t row = from; row < to; row++)
        for (int column = 0; column < op->y.width; column++) {
            const uint8_t *x = s->arena + op->x.offset + row * op->x.line + (int64_t)column * op->x.stride;
            uint8_t *y = s->arena + op->y.offset + row * op->y.line + (int64_t)column * op->y.stride;
            for (int i = 0; i < op->y.stride; i += VL) {
                fvec v = numbers_at(x + i, op->x.fine) * *(const fvec *)(op->scale + i) + *(const fvec *)(op->bias + i);
                ivec numbers = numbers_from(v, op->y.fine, op->low);
                put_numbers(y + i, op->y.fine, 1, &numbers);
            }
        }
}

static void execute(const Op *op, State *s, int member, Team *team) {
    int members = team->members;
    Packed packed = {op->weight, op->scale, op->bias, padded(op->y.channels, GROUP) / GROUP, padded(op->x.channels, 4) / 4, 0};
    switch (op->kind) {
    case ROWS:
        columns_of_outputs(op, s, member, team);
        break;
    case COLUMNS:
        if (op->in_site >= 0) columns_of_kept(op, s, member, team);
        else columns(op, s, &packed, member, members);
        break;
    case PACKED:
        packed = pack_both(op, s, member, members);
        barrier(team);
        columns(op, s, &packed, member, members);
        break;
    case MAXPOOL:
        maxpool(op, s, member, members);
        break;
    case MEAN:
        sums(op, s, member, members);
        barrier(team);
        if (!member) means(op, s, (float *)(s->arena + op->y.offset), op->x.channels);
        break;
    case GATE:
        sums(op, s, member, members);
        barrier(team);
        if (!member) decide(op, s);
        break;
    case ACTIVATE:
        copy(op, s, member, members);
        break;
    }
}

/* The codes of n pixels of an image, n at most VL, each with its three channels and a byte without meaning. */
INLINE ivec pixels_from(const Program *program, const float *image, int64_t plane, int n) {
    ivec pixels = {0};
    for (int channel = 0; channel < 3; channel++) {
        const float *from = image + channel * plane;
        fvec v = {0};
        if (n == VL) v = *(const fvec *)from;
        else memcpy(&v, from, sizeof(float) * n);
        pixels |= codes_from(v * program->input_scale + program->input_zero, 0) << 8 * channel;
    }
    return pixels;
}

/* Put the three channels of VL pixels side by side. */
typedef uint8_t four_pixels __attribute__((vector_size(16), aligned(4), may_alias));
INLINE void pack_pixels(ivec pixels, uint8_t *packed) {
#pragma GCC unroll 4
    for (int i = 0; i < VL / 4; i++) {
        const four_pixels four = *((const four_pixels *)&pixels + i);
        const four_pixels close = __builtin_shufflevector(four, four, 0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
        memcpy(packed + 12 * i, &close, 12);
    }
}

static void put_image(const Program *program, State *s, const float *image, int member, int members) {
    const Activation *t = &program->input;
    const int64_t plane = (int64_t)t->height * t->width;
    int64_t from, to;
    share(t->height, member, members, &from, &to);
    for (int64_t row = from; row < to; row++) {
        uint8_t *y = s->arena + t->offset + row * t->line;
        const float *x = image + row * t->width;
        int column = 0;
        for (; column + VL <= t->width; column += VL) pack_pixels(pixels_from(program, x + column, plane, VL), y + 3 * column);
        uint8_t last[3 * VL];
        pack_pixels(pixels_from(program, x + column, plane, t->width - column), last);
        memcpy(y + 3 * column, last, 3 * (t->width - column));
    }
}
