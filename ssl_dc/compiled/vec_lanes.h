/* Sums over the lanes of vectors of floats, and their transposition. */
#ifndef SSL_DC_VEC_LANES_H
#define SSL_DC_VEC_LANES_H

#include "lanes.h"
DEFINE_SUMS(sums_of, vec)
DEFINE_TRANSPOSE(transpose, vec)

INLINE float sum_of(vec v) {
    float lanes[VL], total = 0;
    memcpy(lanes, &v, sizeof v);
    for (int half = VL / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    total = lanes[0];
    return total;
}

#endif
