/* Convolutions that pick inputs or outputs by a mask: the kept weights are packed for columns. */
#ifndef SSL_DC_INT8_PACKING_H
#define SSL_DC_INT8_PACKING_H

#include "int8_columns.h"
#include "int8_rows.h"

/* Put the weights of one tap for 4 inputs side by side. rows: the weights of a block of outputs for each input, in the order that
 * the host lays out: output 16k + 4l + j is byte 16l + 4k + j. Writes the given number of groups, 64 bytes each. */
#if VB >= 32
#if VB == 64
typedef __m512i lanes;
#define LANES_AT(p) _mm512_loadu_si512((const void *)(p))
#define PUT_LANES(p, v) _mm512_storeu_si512((void *)(p), v)
#define LOW_BYTES _mm512_unpacklo_epi8
#define HIGH_BYTES _mm512_unpackhi_epi8
#define LOW_PAIRS _mm512_unpacklo_epi16
#define HIGH_PAIRS _mm512_unpackhi_epi16
#else
typedef __m256i lanes;
#define LANES_AT(p) _mm256_loadu_si256((const __m256i *)(p))
#define PUT_LANES(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define LOW_BYTES _mm256_unpacklo_epi8
#define HIGH_BYTES _mm256_unpackhi_epi8
#define LOW_PAIRS _mm256_unpacklo_epi16
#define HIGH_PAIRS _mm256_unpackhi_epi16
#endif
INLINE void interleave(const int8_t *const *rows, int groups, int8_t *packed) {
    for (int at = 0; at < BLOCK; at += VB) {
        lanes a = LANES_AT(rows[0] + at), b = LANES_AT(rows[1] + at), c = LANES_AT(rows[2] + at), d = LANES_AT(rows[3] + at);
        lanes low_ab = LOW_BYTES(a, b), high_ab = HIGH_BYTES(a, b), low_cd = LOW_BYTES(c, d), high_cd = HIGH_BYTES(c, d);
        PUT_LANES(packed + at, LOW_PAIRS(low_ab, low_cd));
        if (groups > 1) PUT_LANES(packed + 64 + at, HIGH_PAIRS(low_ab, low_cd));
        if (groups > 2) PUT_LANES(packed + 128 + at, LOW_PAIRS(high_ab, high_cd));
        if (groups > 3) PUT_LANES(packed + 192 + at, HIGH_PAIRS(high_ab, high_cd));
    }
}
#else
INLINE void interleave(const int8_t *const *rows, int groups, int8_t *packed) {
    for (int k = 0; k < groups; k++)
        for (int l = 0; l < 4; l++)
            for (int j = 0; j < 4; j++)
                for (int i = 0; i < 4; i++) packed[k * 64 + l * 16 + j * 4 + i] = rows[i][16 * l + 4 * k + j];
}
#endif

/* Pack the weights of the kept inputs for some blocks of outputs; op->weight is [block of outputs][input][tap][output of the block].
 * The kept weights are scattered: those of the next inputs are prefetched. */
static Packed pack_inputs(const Op *op, const State *s, int8_t *packed, int first, int last, int member, int members) {
    static const int8_t none[BLOCK] = {0};
    const int32_t *kept = kept_of(s, op->in_site);
    const int n = s->count[op->in_site], fours = (n + 3) / 4, taps = op->kernel_h * op->kernel_w;
    const int groups = padded(op->y.channels, GROUP) / GROUP;
    const int64_t length = (int64_t)taps * BLOCK; /* of the weights of an input for a block */
    int64_t from, to;
    share(fours, member, members, &from, &to);
    for (int block = first; block < last; block++) {
        const int8_t *weight = op->weight + block * op->x.channels * length;
        const int here = groups_of_block(groups, block);
        int8_t *to_block = packed + (int64_t)(block - first) * BLOCK * 4 * taps * fours;
        for (int64_t four = from; four < to; four++) {
            for (int64_t j = 4 * four + 4; j < 4 * four + 8 && j < n; j++) fetch(weight + kept[j] * length, length, 0, 1);
            const int8_t *rows[4];
            for (int i = 0; i < 4; i++) rows[i] = 4 * four + i < n ? weight + kept[4 * four + i] * length : NULL;
            int8_t *to_four = to_block + four * here * 64;
            for (int tap = 0; tap < taps; tap++, to_four += (int64_t)fours * here * 64) {
                const int8_t *of_tap[4];
                for (int i = 0; i < 4; i++) of_tap[i] = rows[i] ? rows[i] + tap * BLOCK : none;
                interleave(of_tap, here, to_four);
            }
        }
    }
    int last_group = last * GROUPS_OF_BLOCK < groups ? last * GROUPS_OF_BLOCK : groups;
    return (Packed){packed, op->scale + first * BLOCK, op->bias + first * BLOCK, last_group - first * GROUPS_OF_BLOCK, fours,
                    first * BLOCK};
}

/* A convolution that picks inputs. A member of the team takes whole blocks of outputs if there are enough: it computes with the
 * packed weights of a block while these are in the cache of its core. */
static void columns_of_kept(const Op *op, const State *s, int member, Team *team) {
    const int blocks = padded(op->y.channels, BLOCK) / BLOCK, members = team->members;
    int8_t *scratch = (int8_t *)s->scratch;
    if (members > 1 && blocks < 2 * members) {
        Packed packed = pack_inputs(op, s, scratch, 0, blocks, member, members);
        barrier(team);
        columns(op, s, &packed, member, members);
        return;
    }
    const int64_t of_block = (int64_t)BLOCK * op->kernel_h * op->kernel_w * padded(op->x.channels, 4);
    int64_t from, to;
    share(blocks, member, members, &from, &to);
    for (int64_t block = from; block < to; block++) {
        Packed packed = pack_inputs(op, s, scratch + member * of_block, (int)block, (int)block + 1, 0, 1);
        columns(op, s, &packed, 0, 1);
    }
}

/* Pack the weights of the kept outputs and inputs, and the scales of the kept outputs; op->weight is [output][tap][input]. */
static Packed pack_both(const Op *op, const State *s, int member, int members) {
    const int32_t *out = kept_of(s, op->out_site), *in = kept_of(s, op->in_site);
    const int n = s->count[op->out_site], inputs = s->count[op->in_site], fours = (inputs + 3) / 4;
    const int taps = op->kernel_h * op->kernel_w, groups = padded(n, GROUP) / GROUP;
    float *scale = s->scratch, *bias = scale + groups * GROUP;
    int8_t *packed = (int8_t *)(bias + groups * GROUP);
    int64_t from, to;
    share(groups * GROUP, member, members, &from, &to);
    for (int64_t j = from; j < to; j++) {
        int block = (int)(j / BLOCK), here = groups_of_block(groups, block);
        int8_t *to_output = packed + (int64_t)block * BLOCK * 4 * taps * fours + (j % BLOCK) * 4;
        scale[j] = j < n ? op->scale[out[j]] : 0, bias[j] = j < n ? op->bias[out[j]] : 0;
        for (int tap = 0; tap < taps; tap++)
            for (int i = 0; i < 4 * fours; i++)
                to_output[((int64_t)tap * fours + i / 4) * here * 64 + i % 4] =
                    j < n && i < inputs ? op->weight[((int64_t)out[j] * taps + tap) * op->x.channels + in[i]] : 0;
    }
    return (Packed){packed, scale, bias, groups, fours, 0};
}

/* Put 16 bytes of the weights of 4 outputs side by side, 4 bytes of each; step: from the 4 bytes of an output to its next ones. */
typedef int32_t quad __attribute__((vector_size(16), aligned(4), may_alias));
INLINE void turn(const int8_t *const *rows, int64_t at, int8_t *packed, int64_t step) {
    quad a = *(const quad *)(rows[0] + at), b = *(const quad *)(rows[1] + at);
    quad c = *(const quad *)(rows[2] + at), d = *(const quad *)(rows[3] + at);
    quad low_ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), high_ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    quad low_cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), high_cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(quad *)packed = __builtin_shufflevector(low_ab, low_cd, 0, 1, 4, 5);
    *(quad *)(packed + step) = __builtin_shufflevector(low_ab, low_cd, 2, 3, 6, 7);
    *(quad *)(packed + 2 * step) = __builtin_shufflevector(high_ab, high_cd, 0, 1, 4, 5);
    *(quad *)(packed + 3 * step) = __builtin_shufflevector(high_ab, high_cd, 2, 3, 6, 7);
}

/* Pack the weights and scales of the kept outputs for columns; op->weight is laid out for rows. Outputs that fill up the last group
 * have weights of another one, and a scale of zero. The kept weights are scattered: those of the next outputs are prefetched. */
static Packed pack_outputs(const Op *op, const State *s, int member, int members) {
    const int32_t *kept = kept_of(s, op->out_site);
    const int n = s->count[op->out_site], groups = padded(n, GROUP) / GROUP;
    const int taps_of_row = op->kernel_w * op->x.stride, run = padded(taps_of_row, ROW);
    const int64_t length = (int64_t)op->kernel_h * run;
    float *scale = s->scratch, *bias = scale + groups * GROUP;
    int8_t *packed = (int8_t *)(bias + groups * GROUP);
    int64_t from, to;
    share(groups * GROUP / 4, member, members, &from, &to);
    for (int64_t j = 4 * from; j < 4 * to; j += 4) {
        const int8_t *rows[4];
        for (int i = 0; i < 4; i++) {
            int filled = j + i < n, channel = kept[filled ? j + i : n - 1];
            rows[i] = op->weight + channel * length;
            scale[j + i] = filled ? op->scale[channel] : 0, bias[j + i] = filled ? op->bias[channel] : 0;
            if (j + 4 + i < n) fetch(op->weight + kept[j + 4 + i] * length, length, 0, 1);
        }
        const int block = (int)(j / BLOCK);
        const int64_t step = groups_of_block(groups, block) * 64;
        int8_t *to_outputs = packed + block * BLOCK * (int64_t)op->kernel_h * taps_of_row + j % BLOCK * 4;
        for (int ky = 0; ky < op->kernel_h; ky++)
            for (int at = 0; at < taps_of_row; at += 16, to_outputs += 4 * step) turn(rows, ky * run + at, to_outputs, step);
    }
    return (Packed){packed, scale, bias, groups, op->x.stride / 4, 0};
}

/* Whether columns are faster than rows for the n kept outputs of a convolution, though their weights must be packed. Counted in
 * dot products of 64 bytes, as measured with AVX-512, and roughly with AVX2: the end of each sum of rows costs SUM, to pack 64 bytes PACK. */
#define SUM 12
#define PACK (VB == 64 ? 10 : 24)
static int faster_as_columns(const Op *op, int n) {
    const int64_t run = padded(op->kernel_w * op->x.stride, ROW), dots = op->kernel_h * run / 64;
    const int64_t pixels = (int64_t)op->y.height * op->y.width;
    return op->x.stride % 16 == 0 && padded(n, GROUP) * dots * (pixels + PACK) < n * (dots + SUM) * pixels;
}

static void columns_of_outputs(const Op *op, const State *s, int member, Team *team) {
    const int n = s->count[op->out_site];
    if (!faster_as_columns(op, n)) {
        rows(op, s, member, team->members);
        return;
    }
    Packed packed = pack_outputs(op, s, member, team->members);
    barrier(team);
    columns(op, s, &packed, member, team->members);
}

#endif
