/* Convolutions that pick inputs, in bf16: the weights of each two kept inputs are put side by side. */
#ifndef SSL_DC_BF16_PACKING_H
#define SSL_DC_BF16_PACKING_H

INLINE uvec widened(const Weight *w) { return __builtin_convertvector(*(const hvec *)w, uvec); }

/* Pack some lanes of kept inputs for a block of outputs; op->weight is [block of outputs][input][tap][output of the block]. The kept
 * weights are scattered: those of the next inputs are prefetched. */
static void pack_lanes(const Op *op, const State *s, int block, int64_t first, int64_t last, Weight *packed) {
    const int32_t *kept = kept_of(s, op->in_site);
    const int n = s->count[op->in_site], vectors = (op->y.channels + VL - 1) / VL - block * NV, here = vectors < NV ? vectors : NV;
    const int taps = op->kernel_h * op->kernel_w;
    const int64_t length = (int64_t)taps * here * VL; /* of the weights of an input */
    const Weight *weight = op->weight + (int64_t)block * BLOCK * op->x.channels * taps;
    for (int64_t lane = first; lane < last; lane++) {
        for (int64_t j = 2 * lane + 2; j < 2 * lane + 4 && j < n; j++) fetch(weight + kept[j] * length, length, 0, 1);
        const Weight *low = weight + kept[2 * lane] * length, *high = 2 * lane + 1 < n ? weight + kept[2 * lane + 1] * length : NULL;
        Weight *to = packed + lane * 2 * length;
        for (int64_t i = 0; i < length; i += VL) *(pairs *)(to + 2 * i) = widened(low + i) | (high ? widened(high + i) << 16 : (uvec){0});
    }
}

/* A convolution that picks inputs. A member of the team takes whole blocks of outputs if there are enough: it computes with the packed
 * weights of a block while these are in the cache of its core. */
static void columns_of_kept(const Op *op, const State *s, int member, Team *team) {
    const int vectors = (op->y.channels + VL - 1) / VL, blocks = (vectors + NV - 1) / NV, members = team->members;
    const int lanes = (s->count[op->in_site] + 1) / 2, taps = op->kernel_h * op->kernel_w;
    Weight *scratch = (Weight *)s->scratch;
    int64_t from, to;
    if (members > 1 && blocks < 2 * members) {
        share(lanes, member, members, &from, &to);
        for (int block = 0; block < blocks; block++)
            pack_lanes(op, s, block, from, to, scratch + (int64_t)block * BLOCK * 2 * lanes * taps);
        barrier(team);
        columns(op, s, member, members, (Block){scratch, op->bias, 0, op->y.channels, op->y.channels, lanes, NULL, lanes});
        return;
    }
    Weight *packed = scratch + (int64_t)member * BLOCK * taps * ((op->x.channels + 1) / 2) * 2;
    share(blocks, member, members, &from, &to);
    for (int block = (int)from; block < to; block++) {
        const int first = block * BLOCK, here = op->y.channels - first < BLOCK ? op->y.channels - first : BLOCK;
        pack_lanes(op, s, block, 0, lanes, packed);
        columns(op, s, 0, 1, (Block){packed, op->bias + first, first, here, here, lanes, NULL, lanes});
    }
}

#endif
