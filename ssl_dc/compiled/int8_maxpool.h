/* The maximum over windows: that of codes is that of their values. */
#ifndef SSL_DC_INT8_MAXPOOL_H
#define SSL_DC_INT8_MAXPOOL_H

#include "int8_codes.h"

typedef uint8_t bytes __attribute__((vector_size(VB), aligned(1), may_alias));
#if VB == 64
INLINE bytes larger_bytes(bytes a, bytes b) { return (bytes)_mm512_max_epu8((__m512i)a, (__m512i)b); }
#elif VB == 32
INLINE bytes larger_bytes(bytes a, bytes b) { return (bytes)_mm256_max_epu8((__m256i)a, (__m256i)b); }
#endif
INLINE narrow larger_narrow(narrow a, narrow b) {
    narrow more = (narrow)(a > b);
    return (a & more) | (b & ~more);
}

/* Put the largest bytes over a window of x into y; x and y point to a channel of the first pixel. */
#define POOL(type, larger_of)                                                                                        \
    do {                                                                                                             \
        type best = *(const type *)(x + i);                                                                          \
        for (int r = 0; r < window.rows; r++)                                                                        \
            for (int c = 0; c < window.columns; c++)                                                                 \
                best = larger_of(best, *(const type *)(x + (int64_t)r * op->x.line + (int64_t)c * op->x.stride + i)); \
        *(type *)(y + i) = best;                                                                                     \
    } while (0)

static void maxpool(const Op *op, const State *s, int member, int members) {
    int64_t from, to;
    share(op->y.height, member, members, &from, &to);
    for (int row = (int)from; row < to; row++)
        for (int column = 0; column < op->y.width; column++) {
            const Window window = window_at(op, s, row, column);
            const uint8_t *x = window.x;
            uint8_t *y = window.y;
            int i = 0;
#if VB > 16
            for (; i + VB <= op->y.stride; i += VB) POOL(bytes, larger_bytes);
#endif
            for (; i < op->y.stride; i += 16) POOL(narrow, larger_narrow);
        }
}

#endif
