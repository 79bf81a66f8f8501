/* Convolutions that pick outputs and inputs. */
#ifndef SSL_DC_PACKED_H
#define SSL_DC_PACKED_H

/* Pack the kept weights of a convolution that picks both: [kept output][tap][kept input, padded to whole vectors].
 * Returns the padded number of inputs. */
static int pack(const Op *op, const State *s, int member, int members, Weight *packed) {
    const int32_t *out = kept_of(s, op->out_site), *in = kept_of(s, op->in_site);
    int n = s->count[op->out_site], inputs = s->count[op->in_site];
    int depth = (inputs + VECTOR - 1) / VECTOR * VECTOR, taps = op->kernel_h * op->kernel_w;
    int full = (op->x.channels + VECTOR - 1) / VECTOR * VECTOR;
    int64_t from, to;
    share(n, member, members, &from, &to);
    for (int64_t j = from; j < to; j++)
        for (int tap = 0; tap < taps; tap++) {
            const Weight *w = op->weight + ((int64_t)out[j] * taps + tap) * full;
            Weight *to_row = packed + (j * taps + tap) * depth;
            for (int i = 0; i < inputs; i++) to_row[i] = w[in[i]];
            for (int i = inputs; i < depth; i++) to_row[i] = 0;
        }
    return depth;
}

static void rows_of_both(const Op *op, const State *s, int member, Team *team) {
    Weight *packed = (Weight *)s->scratch;
    const int depth = pack(op, s, member, team->members, packed);
    barrier(team);
    rows(op, s, member, team->members, packed, depth, 0);
}

#endif
