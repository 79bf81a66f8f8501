/* Codes and fine bytes: how numbers are read from them, and rounded to them. */
#ifndef SSL_DC_INT8_CODES_H
#define SSL_DC_INT8_CODES_H

#include "int8_dot.h"

#if VB == 64
INLINE fvec larger(fvec a, fvec b) { return (fvec)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE fvec smaller(fvec a, fvec b) { return (fvec)_mm512_min_ps((__m512)a, (__m512)b); }
#elif VB == 32
INLINE fvec larger(fvec a, fvec b) { return (fvec)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE fvec smaller(fvec a, fvec b) { return (fvec)_mm256_min_ps((__m256)a, (__m256)b); }
#else
INLINE fvec chosen(ivec first, fvec a, fvec b) { return (fvec)((first & (ivec)a) | (~first & (ivec)b)); }
INLINE fvec larger(fvec a, fvec b) { return chosen(a > b, a, b); } /* b if a is NaN, as the instructions of x86 give */
INLINE fvec smaller(fvec a, fvec b) { return chosen(a < b, a, b); }
#endif

#define ALL(value) ((value) - (fvec){0})
#define TO_EVEN 12582912.0f /* 1.5 * 2^23: a float of this size has no digits after the point */

/* The codes of v: clamped to [low, 255] and rounded, ties to even. A NaN becomes low. */
INLINE ivec codes_from(fvec v, float low) {
    v = smaller(larger(v, ALL(low)), ALL(255.0f));
    return (ivec)(v + TO_EVEN) - (ivec)ALL(TO_EVEN);
}

INLINE fvec floats_of(ivec v) { return __builtin_convertvector(v, fvec); }
#if VB == 64 /* GCC 12 makes many instructions of these conversions, where there is one */
INLINE ivec integers_at(const uint8_t *codes) { return (ivec)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codes)); }
INLINE void put_codes(uint8_t *y, ivec codes) { _mm_storeu_si128((__m128i *)y, _mm512_cvtepi32_epi8((__m512i)codes)); }
#elif VB == 32
INLINE ivec integers_at(const uint8_t *codes) { return (ivec)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)codes)); }
INLINE void put_codes(uint8_t *y, ivec codes) {
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128((__m256i)codes), _mm256_extracti128_si256((__m256i)codes, 1));
    _mm_storel_epi64((__m128i *)y, _mm_packus_epi16(words, words));
}
#else
INLINE ivec integers_at(const uint8_t *codes) { return __builtin_convertvector(*(const bvec *)codes, ivec); }
INLINE void put_codes(uint8_t *y, ivec codes) { *(bvec *)y = __builtin_convertvector(codes, bvec); }
#endif

#define FINE_BITS 8
#define OF_STEP 256 /* a fine byte counts parts of a step of this size */
#define NO_LOSS 128 /* the fine byte of a value that its code stands for exactly */

/* The numbers of an activation, or its codes if there are no fine bytes; fine: the bytes from a code to its fine byte, or 0. */
INLINE fvec numbers_at(const uint8_t *codes, int64_t fine) {
    ivec v = integers_at(codes);
    if (fine) v = (v << FINE_BITS) + integers_at(codes + fine);
    return floats_of(v);
}

/* The numbers of v, which is in codes; its codes if there are to be no fine bytes. */
INLINE ivec numbers_from(fvec v, int64_t fine, float low) {
    if (!fine) return codes_from(v, low);
    v = smaller(larger(v, ALL(low)), ALL(255.0f)) * (float)OF_STEP;
    return (ivec)(v + TO_EVEN) - (ivec)ALL(TO_EVEN) + NO_LOSS;
}

/* Put V vectors of numbers, one after the other. */
INLINE void put_numbers(uint8_t *y, int64_t fine, const int V, const ivec *numbers) {
#if VB == 64
    if (V == 4) { /* the bytes of four vectors fill one: the instructions mix them up, and the last one puts them in order */
        const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        __m512i ab = _mm512_packus_epi32((__m512i)numbers[0], (__m512i)numbers[1]);
        __m512i cd = _mm512_packus_epi32((__m512i)numbers[2], (__m512i)numbers[3]);
        if (fine) {
            const __m512i low = _mm512_set1_epi16(OF_STEP - 1);
            __m512i parts = _mm512_packus_epi16(_mm512_and_si512(ab, low), _mm512_and_si512(cd, low));
            _mm512_storeu_si512(y + fine, _mm512_permutexvar_epi32(order, parts));
            ab = _mm512_srli_epi16(ab, FINE_BITS), cd = _mm512_srli_epi16(cd, FINE_BITS);
        }
        _mm512_storeu_si512(y, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(ab, cd)));
        return;
    }
#elif VB == 32
    if (V == 2) { /* the same with two vectors: the codes come first, then the fine bytes */
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7), low = _mm256_set1_epi16(OF_STEP - 1);
        const __m256i ab = _mm256_packus_epi32((__m256i)numbers[0], (__m256i)numbers[1]);
        const __m256i codes = fine ? _mm256_srli_epi16(ab, FINE_BITS) : ab;
        const __m256i both = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(codes, _mm256_and_si256(ab, low)), order);
        _mm_storeu_si128((__m128i *)y, _mm256_castsi256_si128(both));
        if (fine) _mm_storeu_si128((__m128i *)(y + fine), _mm256_extracti128_si256(both, 1));
        return;
    }
#endif
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) {
        put_codes(y + v * VL, fine ? numbers[v] >> FINE_BITS : numbers[v]);
        if (fine) put_codes(y + fine + v * VL, numbers[v] & (OF_STEP - 1));
    }
}

INLINE ivec four_codes(const uint8_t *x) {
    int32_t four;
    memcpy(&four, x, 4);
    return (ivec){0} + four;
}

typedef uint8_t narrow __attribute__((vector_size(16), aligned(1), may_alias)); /* the codes of 16 channels */

#endif
