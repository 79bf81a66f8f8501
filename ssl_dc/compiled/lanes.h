/* Sums over the lanes of vectors of VL numbers, for VL = 4, 8 or 16.
 *
 * DEFINE_SUMS(name, type) defines a function that computes the sum over the lanes of each of VL vectors. The sum of vector i is in
 * lane LANE[i] of the result; LANE is its own inverse. FOLD_h adds the two halves of each run of 2h lanes, and puts the sums of its
 * two vectors side by side.
 */
#ifndef SSL_DC_LANES_H
#define SSL_DC_LANES_H

#if VL == 16
#define FOLD_8(a, b) \
    (__builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) + \
     __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
#define FOLD_4(a, b) \
    (__builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) + \
     __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
#define FOLD_2(a, b) \
    (__builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) + \
     __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
#define FOLD_1(a, b) \
    (__builtin_shufflevector(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) + \
     __builtin_shufflevector(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
static const unsigned char LANE[VL] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};
#elif VL == 8
#define FOLD_8(a, b) (a)
#define FOLD_4(a, b) \
    (__builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + \
     __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15))
#define FOLD_2(a, b) \
    (__builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + \
     __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15))
#define FOLD_1(a, b) \
    (__builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) + \
     __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15))
static const unsigned char LANE[VL] = {0, 4, 2, 6, 1, 5, 3, 7};
#else
#define FOLD_8(a, b) (a)
#define FOLD_4(a, b) (a)
#define FOLD_2(a, b) \
    (__builtin_shufflevector(a, b, 0, 1, 4, 5) + \
     __builtin_shufflevector(a, b, 2, 3, 6, 7))
#define FOLD_1(a, b) \
    (__builtin_shufflevector(a, b, 0, 4, 2, 6) + \
     __builtin_shufflevector(a, b, 1, 5, 3, 7))
static const unsigned char LANE[VL] = {0, 2, 1, 3};
#endif

/* Of each two vectors whose numbers differ by the bit S, swap the lanes of the first that have this bit with those of the second that
 * do not. Done for each bit, this transposes. */
#define OF_FIRST(l, S) ((l) & (S) ? VL + (l) - (S) : (l))
#define OF_SECOND(l, S) ((l) & (S) ? VL + (l) : (l) + (S))
#define FROM(l, OF, S) OF(l, S), OF(l + 1, S), OF(l + 2, S), OF(l + 3, S)
#if VL == 16
#define LANES(OF, S) FROM(0, OF, S), FROM(4, OF, S), FROM(8, OF, S), FROM(12, OF, S)
#define EACH_BIT(DO, type, v) DO(type, v, 1) DO(type, v, 2) DO(type, v, 4) DO(type, v, 8)
#elif VL == 8
#define LANES(OF, S) FROM(0, OF, S), FROM(4, OF, S)
#define EACH_BIT(DO, type, v) DO(type, v, 1) DO(type, v, 2) DO(type, v, 4)
#else
#define LANES(OF, S) FROM(0, OF, S)
#define EACH_BIT(DO, type, v) DO(type, v, 1) DO(type, v, 2)
#endif
#define SWAP(type, v, S)                                                    \
    for (int i = 0; i < VL; i++)                                            \
        if (!(i & (S))) {                                                   \
            const type first = v[i], second = v[i + (S)];                   \
            v[i] = __builtin_shufflevector(first, second, LANES(OF_FIRST, S)); \
            v[i + (S)] = __builtin_shufflevector(first, second, LANES(OF_SECOND, S)); \
        }

/* DEFINE_TRANSPOSE(name, type) defines a function that transposes VL vectors: lane j of vector i becomes lane i of vector j. */
#define DEFINE_TRANSPOSE(name, type) \
    INLINE void name(type *v) { EACH_BIT(SWAP, type, v) }

#define DEFINE_SUMS(name, type)                                            \
    INLINE type name(type *v) {                                            \
        if (VL >= 16)                                                      \
            for (int i = 0; i < 8; i++) v[i] = FOLD_8(v[2 * i], v[2 * i + 1]); \
        if (VL >= 8)                                                       \
            for (int i = 0; i < 4; i++) v[i] = FOLD_4(v[2 * i], v[2 * i + 1]); \
        for (int i = 0; i < 2; i++) v[i] = FOLD_2(v[2 * i], v[2 * i + 1]); \
        return FOLD_1(v[0], v[1]);                                         \
    }

#endif
