/* Vectors of VB bytes, which hold VL numbers of 32 bits, and exact dot products of codes with weights. */
#ifndef SSL_DC_INT8_DOT_H
#define SSL_DC_INT8_DOT_H

#include "int8_layout.h"

#if !defined(SSL_DC_PLAIN) && defined(__x86_64__)
#include <immintrin.h>
#if defined(__AVX512BW__)
#define VB 64 /* bytes of a vector */
#elif defined(__AVX2__)
#define VB 32
#else
#define VB 16
#endif
#else
#define VB 16
#if !defined(SSL_DC_PLAIN) && defined(__aarch64__) && (defined(__ARM_FEATURE_MATMUL_INT8) || defined(__ARM_FEATURE_DOTPROD))
#include <arm_neon.h>
#endif
#endif
#define VL (VB / 4)
#define MAX_PIXELS 12 /* pixels that are computed at once, at most, so that their sums stay in registers */

typedef int32_t ivec __attribute__((vector_size(VB), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(VB), aligned(4), may_alias));
typedef float fvec __attribute__((vector_size(VB), aligned(4), may_alias));
typedef int16_t svec __attribute__((vector_size(VB), aligned(4), may_alias));
typedef uint16_t hvec __attribute__((vector_size(VB), aligned(4), may_alias));
typedef uint8_t bvec __attribute__((vector_size(VL), aligned(1), may_alias)); /* a byte for each lane */

/* dot adds to each lane of sum the four products of the unsigned bytes of x with the signed bytes of w in that lane, exactly.
 * Where no instruction does this, x86 adds the products of pairs in 16 bits, which holds them if no weight is beyond 64:
 * 2 * 255 * 64 < 2^15. With SSL_DC_ANY_WEIGHT it multiplies the even and the odd bytes by themselves, which takes about twice as
 * many instructions. */
#if !defined(SSL_DC_PLAIN) && VB == 64 && defined(__AVX512VNNI__)
#define DOT "avx512-vnni"
#elif !defined(SSL_DC_PLAIN) && VB == 32 && defined(__AVXVNNI__)
#define DOT "avx-vnni"
#elif !defined(SSL_DC_PLAIN) && VB == 64 && !defined(SSL_DC_ANY_WEIGHT)
#define DOT "avx512-pairs"
#define PAIRS(x, w) (ivec)_mm512_maddubs_epi16((__m512i)(x), (__m512i)(w))
#define MADD(a, b) (ivec)_mm512_madd_epi16((__m512i)(a), (__m512i)(b))
#elif !defined(SSL_DC_PLAIN) && VB == 32 && !defined(SSL_DC_ANY_WEIGHT)
#define DOT "avx2-pairs"
#define PAIRS(x, w) (ivec)_mm256_maddubs_epi16((__m256i)(x), (__m256i)(w))
#define MADD(a, b) (ivec)_mm256_madd_epi16((__m256i)(a), (__m256i)(b))
#elif !defined(SSL_DC_PLAIN) && defined(__x86_64__)
#define SPLIT
#if VB == 64
#define DOT "avx512"
#define MADD(a, b) (ivec)_mm512_madd_epi16((__m512i)(a), (__m512i)(b))
#elif VB == 32
#define DOT "avx2"
#define MADD(a, b) (ivec)_mm256_madd_epi16((__m256i)(a), (__m256i)(b))
#else
#define DOT "sse2"
#define MADD(a, b) (ivec)_mm_madd_epi16((__m128i)(a), (__m128i)(b))
#endif
#elif !defined(SSL_DC_PLAIN) && defined(__aarch64__) && defined(__ARM_FEATURE_MATMUL_INT8)
#define DOT "neon-i8mm"
#define NEON
#elif !defined(SSL_DC_PLAIN) && defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#define DOT "neon-dotprod"
#define SIGNED
#else
#define DOT "plain"
#endif

#ifdef SPLIT
typedef struct {
    svec even, odd;
} Codes, Weights;
INLINE Codes codes_of(ivec x) { return (Codes){(svec)((hvec)x & 255), (svec)((hvec)x >> 8)}; }
INLINE Weights weights_of(ivec w) { return (Weights){(svec)((hvec)w << 8) >> 8, (svec)w >> 8}; }
INLINE ivec dot(ivec sum, Codes x, Weights w) { return sum + MADD(x.even, w.even) + MADD(x.odd, w.odd); }
#elif defined(SIGNED)
/* The instruction multiplies signed bytes only. So x - 128 is multiplied, and 128 * w is added. */
typedef uvec Codes;
typedef struct {
    ivec w, missing;
} Weights;
INLINE Codes codes_of(ivec x) { return (uvec)x ^ 0x80808080; }
INLINE Weights weights_of(ivec w) {
    int32x4_t by_64 = vdotq_s32(vdupq_n_s32(0), (int8x16_t)w, vdupq_n_s8(64));
    return (Weights){w, 2 * (ivec)by_64};
}
INLINE ivec dot(ivec sum, Codes x, Weights w) {
    return (ivec)vdotq_s32((int32x4_t)(sum + w.missing), (int8x16_t)x, (int8x16_t)w.w);
}
#else
typedef ivec Codes, Weights;
INLINE Codes codes_of(ivec x) { return x; }
INLINE Weights weights_of(ivec w) { return w; }
INLINE ivec dot(ivec sum, Codes x, Weights w) {
#ifdef PAIRS
    return sum + MADD(PAIRS(x, w), (svec){0} + 1);
#elif VB == 64
    return (ivec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
#elif VB == 32
    return (ivec)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)x, (__m256i)w);
#elif defined(NEON)
    return (ivec)vusdotq_s32((int32x4_t)sum, (uint8x16_t)x, (int8x16_t)w);
#else
    for (int byte = 0; byte < 4; byte++)
        sum += (ivec)((uvec)x >> 8 * byte & 255) * ((ivec)((uvec)w << (24 - 8 * byte)) >> 24);
    return sum;
#endif
}
#endif

/* What the host asks for, and the tests check. */
const char *ssl_dc_dot(void) { return DOT; }
#ifdef PAIRS
int ssl_dc_largest_weight(void) { return 64; }
#else
int ssl_dc_largest_weight(void) { return 127; }
#endif

#endif
