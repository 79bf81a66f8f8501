/* Runs a plan in bf16, image by image, and computes only what the masks keep.
 *
 * It is kernel.c with other numbers: weights and activations are the upper halves of floats, two of which a lane of a vector holds,
 * and products are added as floats. What is added to a sum - bias, residual - is added before it is rounded. Means, and the decisions
 * of gates, are in float32.
 *
 * A pixel of the images has its three channels side by side, so that a row of taps of a pixel is a run of elements: the first
 * convolution is one of a single column whose inputs are those of a row of taps.
 * Masks pick other inputs for each image, so a convolution that picks inputs first puts the weights of each two side by side
 * (bf16_packing.h).
 */
#define _GNU_SOURCE
#include "bf16_numbers.h"

#include "operations.h"

static void execute(const Op *op, State *s, int member, Team *team) { execute_shared(op, s, member, team); }

static void put_image(const Program *program, State *s, const float *image, int member, int members) {
    const Activation *t = &program->input;
    int64_t from, to;
    share(t->height, member, members, &from, &to);
    for (int64_t row = from; row < to; row++)
        for (int channel = 0; channel < t->channels; channel++) {
            const float *x = image + ((int64_t)channel * t->height + row) * t->width;
            Element *y = s->arena + t->offset + channel + row * t->line;
            for (int column = 0; column < t->width; column++) y[(int64_t)column * t->stride] = element_of(x[column]);
        }
}
