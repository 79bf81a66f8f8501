/* What an activation and a weight are in bf16: the upper halves of floats. A lane holds two of them, whose products are added. */
#ifndef SSL_DC_NUMBERS_H
#define SSL_DC_NUMBERS_H

#include "vectors.h"
#if !defined(SSL_DC_PLAIN) && defined(__x86_64__)
#include <immintrin.h>
#elif !defined(SSL_DC_PLAIN) && defined(__aarch64__) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include <arm_neon.h>
#endif

typedef uint16_t Element, Weight;
#define DEPTH 2 /* elements in a lane of a vector that is multiplied */
#define VECTOR (VL * DEPTH)
#define BLOCK (VL * NV)
#include "program.h"

typedef uint16_t hvec __attribute__((vector_size(VL * 2), aligned(2), may_alias));          /* VL elements */
typedef uint32_t pairs __attribute__((vector_size(VL * 4), aligned(2), may_alias));         /* VL lanes, as they lie in memory */

/* ADD_PRODUCTS adds to each lane of sum the products of the two elements of x and w in that lane. Without an instruction for it the
 * elements are made floats first, and each product is added by itself. */
#if !defined(SSL_DC_PLAIN) && defined(__AVX512BF16__) && VL == 16
#define DOT "avx512-bf16"
typedef ivec Operand;
INLINE Operand operand_of(uvec x) { return (ivec)x; }
#define HOLD_OPERAND(x) HOLD(x)
#define SPLIT_OPERANDS 0
#define ADD_PRODUCTS(sum, x, w) sum = (vec)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)(x), (__m512bh)(w))
#elif !defined(SSL_DC_PLAIN) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC) && VL == 4
#define DOT "neon-bf16"
typedef ivec Operand;
INLINE Operand operand_of(uvec x) { return (ivec)x; }
#define HOLD_OPERAND(x) HOLD(x)
#define SPLIT_OPERANDS 0
#define ADD_PRODUCTS(sum, x, w) sum = (vec)vbfdotq_f32((float32x4_t)(sum), (bfloat16x8_t)(x), (bfloat16x8_t)(w))
#else
#define DOT "float32"
typedef struct {
    vec low, high;
} Operand;
INLINE Operand operand_of(uvec x) { return (Operand){(vec)(x << 16), (vec)(x & 0xffff0000u)}; }
#define HOLD_OPERAND(x) \
    do {                \
        HOLD((x).low);  \
        HOLD((x).high); \
    } while (0)
#define SPLIT_OPERANDS 1 /* whether an operand takes two registers */
#define ADD_PRODUCTS(sum, x, w)       \
    do {                              \
        sum += (x).low * (w).low;     \
        sum += (x).high * (w).high;   \
    } while (0)
#endif
typedef Operand Broadcast;
INLINE Operand operand_at(const Element *x) { return operand_of((uvec) * (const pairs *)x); }
INLINE Broadcast broadcast_at(const Element *x) {
    uint32_t pair;
    memcpy(&pair, x, sizeof pair);
    return operand_of(pair - (uvec){0});
}

INLINE vec numbers_at(const Element *x) { return (vec)(__builtin_convertvector(*(const hvec *)x, uvec) << 16); }
/* Round to the nearest, ties to even; a NaN stays a NaN. */
INLINE void put_numbers(Element *y, vec numbers) {
#if !defined(SSL_DC_PLAIN) && defined(__AVX512BF16__) && VL == 16
    *(hvec *)y = (hvec)_mm512_cvtneps_pbh((__m512)numbers);
#else
    const uvec bits = (uvec)numbers, nan = (uvec)(numbers != numbers);
    const uvec rounded = bits + 0x7fffu + (bits >> 16 & 1), kept = (rounded & ~nan) | ((bits | 0x400000u) & nan);
    *(hvec *)y = __builtin_convertvector(kept >> 16, hvec);
#endif
}
INLINE Element element_of(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return (Element)((number == number ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000) >> 16);
}

/* What the tests ask for. */
const char *ssl_dc_dot(void) { return DOT; }

#endif
