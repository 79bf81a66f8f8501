/* Runs a plan (ssl_dc/compiled/plan.py) image by image, and computes only what the masks keep.
 *
 * An activation is laid out as (row, column, channel). It has a border of zeros, as wide as the widest padding of the operations
 * that read it. The channels of a pixel are padded with zeros to whole vectors. A channel-gated activation holds only its kept
 * channels, side by side. There are two ways to convolve (rows.h, columns.h); neither copies a weight:
 *
 *   rows     out[p][j] = sum over taps and inputs of x[p + tap][i] * w[kept[j]][tap][i]     (picks outputs: dot products)
 *   columns  out[p][o] = sum over taps and inputs of x[p + tap][j] * w[kept[j]][tap][o]     (picks inputs: scaled vectors)
 *
 * A convolution that picks both outputs and inputs first packs its kept weights, then runs as rows. One that picks outputs packs them
 * too, and runs as columns, where that is faster (picked.h). A linear layer is a 1x1 convolution of tokens.
 * Vectors are vector types of the compiler (GCC, Clang), as wide as those of the processor.
 */
#define _GNU_SOURCE
#include "float32_numbers.h"

#include "operations.h"
#include "depthwise.h"
#include "channelwise.h"
#include "attention.h"
#include "grouped.h"
#include "small_groups.h"

static void execute(const Op *op, State *s, int member, Team *team) {
    int members = team->members;
    switch (op->kind) {
    case DEPTHWISE:
        depthwise(op, s, member, team);
        break;
    case SMALL_GROUPS:
        small_groups(op, s, member, team);
        break;
    case GROUPED:
        grouped(op, s, member, members);
        break;
    case ADD:
        add(op, s, member, members);
        break;
    case MULTIPLY:
        multiply(op, s, member, members);
        break;
    case LAYER_NORM:
        layer_norm(op, s, member, members);
        break;
    case ATTENTION:
        attention(op, s, member, members);
        break;
    default:
        execute_shared(op, s, member, team);
    }
}

static void put_image(const Program *program, State *s, const float *image, int member, int members) {
    const Activation *t = &program->input;
    int64_t from, to;
    share(t->height, member, members, &from, &to);
    for (int channel = 0; channel < t->channels; channel++)
        for (int64_t row = from; row < to; row++) {
            const float *x = image + ((int64_t)channel * t->height + row) * t->width;
            float *y = s->arena + t->offset + (int64_t)channel * t->plane + row * t->line;
            if (t->stride == 1) memcpy(y, x, sizeof(float) * t->width);
            else
                for (int column = 0; column < t->width; column++) y[(int64_t)column * t->stride] = x[column];
        }
}
