/* Runs a plan in int8, image by image, and computes only what the masks keep.
 *
 * An activation holds codes: bytes from 0 to 255. The value of a code is (code - zero) * step; the zero belongs to the activation, and
 * there is a step for each channel. Weights are bytes from -127 to 127, with a step for each output. A sum of products is exact, in
 * 32 bits. Then
 *
 *   code = round(clamp(sum * scale + bias + residual * residual_scale, low, 255))     round to even, each operation in float32
 *
 * which is the bias, the residual and the ReLU in one. So every result is the same bit by bit on every processor: this file must be
 * compiled with -ffp-contract=off.
 *
 * An activation that is more than the input of convolutions has 16 bits for each element, the number
 *
 *   round(256 * clamp(...)) + 128        with the same clamp(...) as above
 *
 * Its upper byte is the code, which convolutions read. The lower byte, the fine byte, lies elsewhere. Residuals, means and copies
 * read the number. scale, bias and low are for codes; residual_scale is for the numbers of the residual.
 *
 * An activation is laid out as (row, column, channel). It has a border of zeros (of the code of 0), as wide as the widest padding of
 * the operations that read it. The channels of a pixel are padded to a multiple of 16; a pixel of the input images has 4 channels. A
 * channel-gated activation holds only its kept channels, side by side. There are two ways to convolve:
 *
 *   rows     the kept outputs as dot products; the weights of an output lie together, and are not copied
 *   columns  16 outputs in a vector of sums, to each of which 4 products are added at once; the weights of 4 inputs are side by side
 *
 * Masks pick other inputs for each image. So a convolution that picks inputs first packs the kept weights for columns.
 */
#define _GNU_SOURCE
#include <stdint.h>

typedef uint8_t Element;
typedef int8_t Weight;
#define GROUP 16           /* outputs whose weights for 4 inputs make 64 bytes, in every layout of weights for columns */
#define GROUPS_OF_BLOCK 4
#define VECTOR 16          /* the channels of a pixel are padded to a multiple of this, and the rows of a gate's layers */
#define BLOCK (GROUP * GROUPS_OF_BLOCK)
#define ROW 64             /* the weights of an output are padded to a multiple of this for each row of taps */
#include "program.h"

/* ---- vectors ---- */

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

typedef int32_t ivec __attribute__((vector_size(VB), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(VB), aligned(4), may_alias));
typedef float fvec __attribute__((vector_size(VB), aligned(4), may_alias));
typedef int16_t svec __attribute__((vector_size(VB), aligned(4), may_alias));
typedef uint16_t hvec __attribute__((vector_size(VB), aligned(4), may_alias));
typedef uint8_t bvec __attribute__((vector_size(VL), aligned(1), may_alias)); /* a byte for each lane */

/* dot adds to each lane of sum the four products of the unsigned bytes of x with the signed bytes of w in that lane, exactly.
 * Where no instruction does this, x and w are first split into their even and odd bytes. */
#if !defined(SSL_DC_PLAIN) && VB == 64 && defined(__AVX512VNNI__)
#define DOT "avx512-vnni"
#elif !defined(SSL_DC_PLAIN) && VB == 32 && defined(__AVXVNNI__)
#define DOT "avx-vnni"
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
#if VB == 64
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

/* What the host reports and the tests check. */
const char *ssl_dc_dot(void) { return DOT; }

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
INLINE void put_codes(uint8_t *y, ivec codes) { *(bvec *)y = __builtin_convertvector(codes, bvec); }
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

#include "lanes.h"
DEFINE_SUMS(sums_of, ivec)

static int padded(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

/* ---- the rows kernel ---- */

typedef struct {
    int kernel_h, line, run; /* run: bytes of the weights of a row of taps, which lie side by side, as its codes do in x */
    float low;
} Rows;

#define MAX_ROWS 4
#define MAX_PIXELS 12
#define MAX_SUMS (27 + VL)

/* Computes R outputs of each of P pixels. x points to the first tap of each pixel, w to R rows of weights. The codes past the end of
 * a row of taps are read, too; their weights are zero. scale and bias: for each pixel those of the R outputs. */
INLINE void rows_tile(const int P, const int R, const uint8_t *const *x, const int8_t *const *w, const float *scale,
                      const float *bias, const Rows *c, uint8_t *const *y) {
    ivec acc[MAX_SUMS];
#pragma GCC unroll 32
    for (int i = 0; i < P * R; i++) acc[i] = (ivec){0};
    /* one loop over rows of taps and what lies side by side in them, as for columns */
    const int64_t all = (int64_t)c->kernel_h * c->run, to_next_row = c->line - c->run;
    int64_t tap = 0;
    int in_row = 0;
    for (int64_t at = 0; at < all; at += VB) {
        Weights wv[MAX_ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) wv[r] = weights_of(*(const ivec *)(w[r] + at));
#pragma GCC unroll 16
        for (int p = 0; p < P; p++) {
            Codes xv = codes_of(*(const ivec *)(x[p] + tap));
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) acc[p * R + r] = dot(acc[p * R + r], xv, wv[r]);
        }
        const int64_t next_row = -((in_row += VB) == c->run);
        in_row &= ~next_row, tap += VB + (next_row & to_next_row);
    }
    uint8_t codes[MAX_SUMS];
#pragma GCC unroll 8
    for (int first = 0; first < P * R; first += VL) {
        ivec group[VL];
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) group[i] = first + LANE[i] < P * R ? acc[first + LANE[i]] : (ivec){0};
        fvec v = floats_of(sums_of(group)) * *(const fvec *)(scale + first) + *(const fvec *)(bias + first);
        put_codes(codes + first, codes_from(v, c->low));
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; p++) memcpy(y[p], codes + p * R, R);
}

typedef void (*rows_fn)(const uint8_t *const *, const int8_t *const *, const float *, const float *, const Rows *,
                        uint8_t *const *);
#define ROWS_FN(P, R)                                                                                                   \
    static void rows_##P##_##R(const uint8_t *const *x, const int8_t *const *w, const float *scale, const float *bias, \
                               const Rows *c, uint8_t *const *y) {                                                      \
        rows_tile(P, R, x, w, scale, bias, c, y);                                                                       \
    }
/* How many pixels are computed at once with a number of rows, so that sums and operands stay in registers; the function for one row
 * less, then the one for that number of rows. */
typedef struct {
    int pixels;
    rows_fn with[2];
} RowsTile;

#if VB == 64
ROWS_FN(6, 4) ROWS_FN(6, 3) ROWS_FN(8, 3) ROWS_FN(8, 2) ROWS_FN(12, 2) ROWS_FN(12, 1) ROWS_FN(9, 3) ROWS_FN(9, 2)
static const RowsTile WITH_ROWS[] = {
    {0}, {12, {0, rows_12_1}}, {12, {rows_12_1, rows_12_2}}, {8, {rows_8_2, rows_8_3}}, {6, {rows_6_3, rows_6_4}}};
static const RowsTile OF_NINE_WITH_3 = {9, {rows_9_2, rows_9_3}};

/* Small pictures may leave fewer places empty in tiles of 9 pixels with 3 rows than in tiles of 6 pixels with 4 rows. */
static int rows_at_once(int pixels) { return padded(pixels, 9) < padded(pixels, 6) ? 3 : 4; }
static const RowsTile *tile_with(int rows, int pixels) {
    return rows == 3 && padded(pixels, 9) < padded(pixels, 6) ? &OF_NINE_WITH_3 : WITH_ROWS + rows;
}
#else
ROWS_FN(4, 2) ROWS_FN(4, 1)
static const RowsTile WITH_ROWS[] = {{0}, {4, {0, rows_4_1}}, {4, {rows_4_1, rows_4_2}}};
static int rows_at_once(int pixels) { return (void)pixels, 2; }
static const RowsTile *tile_with(int rows, int pixels) { return (void)pixels, WITH_ROWS + rows; }
#endif

static void rows(const Op *op, const State *s, int member, int members) {
    const int run = padded(op->kernel_w * op->x.stride, ROW);
    const Rows c = {op->kernel_h, op->x.line, run, op->low};
    const int32_t *kept = kept_of(s, op->out_site);
    int n = count_of(s, op->out_site, op->y.channels);
    if (!n) return;
    const int pixels = op->y.height * op->y.width, at_once = rows_at_once(pixels);
    int64_t length = (int64_t)op->kernel_h * run, blocks = (n + at_once - 1) / at_once;
    const int most = (int)((n + blocks - 1) / blocks);
    const RowsTile *shape = tile_with(most, pixels);
    const int P = shape->pixels;
    int64_t tiles = (pixels + P - 1) / P;
    const uint8_t *x[MAX_PIXELS];
    const int8_t *w[MAX_ROWS];
    uint8_t *y[MAX_PIXELS];
    float scale[MAX_SUMS] = {0}, bias[MAX_SUMS] = {0};
    Part part = part_of(op, tiles, blocks, length * n, member, members);
    int64_t block = -1;
    int first = 0, last = 0;
    for (int64_t item = part.first_item; item < part.last_item; item++) {
        int64_t tile = part.first_tile + item % part.tiles;
        pixels_at(op, s, P, (int)tile * P, x, y);
        if (item / part.tiles != block) {
            block = item / part.tiles;
            first = (int)(n * block / blocks), last = (int)(n * (block + 1) / blocks);
            int here = last - first;
            for (int r = 0; r < here; r++) {
                int channel = kept ? kept[first + r] : first + r;
                w[r] = op->weight + channel * length;
                for (int p = 0; p < P; p++) scale[p * here + r] = op->scale[channel], bias[p * here + r] = op->bias[channel];
            }
        }
        if (kept) /* the weights of the next block are scattered: prefetch them while this block is used */
            for (int j = last; j < n && j < last + most; j++) fetch(op->weight + kept[j] * length, length, tile, tiles);
        for (int p = 0; p < P; p++) y[p] += first;
        shape->with[last - first == most](x, w, scale, bias, &c, y);
    }
}

/* ---- the columns kernel ---- */

/* The weights of a convolution, packed for columns: [block of outputs][tap][4 inputs][output of the block][input of the 4]. */
typedef struct {
    const int8_t *weight;
    const float *scale, *bias; /* padded to whole groups */
    int groups, fours;         /* groups of outputs, fours of inputs */
    int first;                 /* the first of these outputs in y */
} Packed;

typedef struct {
    const int8_t *w;
    const float *scale, *bias;
    const float *residual_scale;
    const int32_t *at; /* bytes from the first tap of a pixel to each four of inputs of each tap */
    int steps, step;   /* how many these are; bytes from the weights of 4 inputs to those of the next 4 */
    float low;
    int64_t y_fine, residual_fine; /* bytes from a code to its fine byte, or 0 */
} Columns;

/* Computes V vectors of outputs of each of P pixels. */
INLINE void columns_tile(const int P, const int V, const uint8_t *const *x, const Columns *c, uint8_t *const *y,
                         const uint8_t *const *residual) {
    ivec acc[24]; /* P * V at most */
#pragma GCC unroll 32
    for (int i = 0; i < P * V; i++) acc[i] = (ivec){0};
    const int8_t *w = c->w;
    for (int i = 0; i < c->steps; i++, w += c->step) {
        const int64_t at = c->at[i];
        Weights wv[4];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) wv[v] = weights_of(*(const ivec *)(w + v * VB));
#pragma GCC unroll 16
        for (int p = 0; p < P; p++) {
            Codes xv = codes_of(four_codes(x[p] + at));
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) acc[p * V + v] = dot(acc[p * V + v], xv, wv[v]);
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; p++) {
        ivec numbers[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) {
            fvec out = floats_of(acc[p * V + v]) * *(const fvec *)(c->scale + v * VL) + *(const fvec *)(c->bias + v * VL);
            if (residual) out += numbers_at(residual[p] + v * VL, c->residual_fine) * *(const fvec *)(c->residual_scale + v * VL);
            numbers[v] = numbers_from(out, c->y_fine, c->low);
        }
        put_numbers(y[p], c->y_fine, V, numbers);
    }
}

typedef void (*columns_fn)(const uint8_t *const *, const Columns *, uint8_t *const *, const uint8_t *const *);
#define COLUMNS_FN(P, V)                                                                            \
    static void columns_##P##_##V(const uint8_t *const *x, const Columns *c, uint8_t *const *y,     \
                                  const uint8_t *const *residual) {                                 \
        if (residual) columns_tile(P, V, x, c, y, residual);                                        \
        else columns_tile(P, V, x, c, y, NULL);                                                     \
    }
/* How many pixels are computed at once, and the functions for each number of vectors of outputs. */
typedef struct {
    int pixels;
    columns_fn with[GROUPS_OF_BLOCK + 1];
} Tile;

#if VB == 64
COLUMNS_FN(6, 4) COLUMNS_FN(6, 3) COLUMNS_FN(6, 2) COLUMNS_FN(6, 1) COLUMNS_FN(8, 3) COLUMNS_FN(12, 2) COLUMNS_FN(12, 1)
COLUMNS_FN(5, 4) COLUMNS_FN(5, 3) COLUMNS_FN(5, 2) COLUMNS_FN(5, 1) COLUMNS_FN(9, 2) COLUMNS_FN(9, 1)
#define NV 4 /* vectors of outputs at once; GROUPS_OF_BLOCK, so that a piece is a block */
static const Tile BY_VECTORS[] = {{0}, {12, {0, columns_12_1}}, {12, {0, 0, columns_12_2}}, {8, {0, 0, 0, columns_8_3}}};
static const Tile OF_SIX = {6, {0, columns_6_1, columns_6_2, columns_6_3, columns_6_4}};
static const Tile OF_FIVE = {5, {0, columns_5_1, columns_5_2, columns_5_3, columns_5_4}};
static const Tile OF_NINE = {9, {0, columns_9_1, columns_9_2}};

/* Small pictures leave fewer places empty in tiles of 5 pixels, or in tiles of 9 pixels with two vectors. */
static int prefers_nine(int pixels) { return padded(pixels, 9) < padded(pixels, 5); }
static const Tile *tile_for(int vectors, int pixels) {
    if (vectors < NV) return BY_VECTORS + vectors;
    return padded(pixels, 5) < padded(pixels, 6) ? &OF_FIVE : &OF_SIX;
}
#else
COLUMNS_FN(4, 2)
#define NV 2
static const Tile OF_FOUR = {4, {0, 0, columns_4_2}}, OF_NINE = {0};
static int prefers_nine(int pixels) { return (void)pixels, 0; }
static const Tile *tile_for(int vectors, int pixels) { return (void)vectors, (void)pixels, &OF_FOUR; }
#endif

static int groups_of_block(int groups, int block) {
    int left = groups - block * GROUPS_OF_BLOCK;
    return left < GROUPS_OF_BLOCK ? left : GROUPS_OF_BLOCK;
}

/* Compute in pieces of V vectors. */
INLINE void columns_in(const int V, const Tile *shape, const Op *op, const State *s, const Packed *packed, int member,
                       int members) {
    const int taps = op->kernel_h * op->kernel_w, vectors = packed->groups * GROUP / VL;
    const int P = shape->pixels, pieces = (vectors + V - 1) / V;
    const int64_t tiles = ((int64_t)op->y.height * op->y.width + P - 1) / P;
    /* One list, and so one loop in columns_tile: the ends of short inner loops would be hard to predict, and cost more than what is
     * computed in them. */
    int32_t at[taps * packed->fours + 1]; /* an array of C has an element, though no input may be kept */
    int steps = 0;
    for (int ky = 0; ky < op->kernel_h; ky++)
        for (int kx = 0; kx < op->kernel_w; kx++)
            for (int four = 0; four < packed->fours; four++) at[steps++] = ky * op->x.line + kx * op->x.stride + 4 * four;
    Columns c = {.at = at, .steps = steps, .low = op->low, .y_fine = op->y.fine, .residual_fine = op->residual.fine};
    Part part = part_of(op, tiles, pieces, (int64_t)taps * packed->fours * 4 * packed->groups * GROUP, member, members);
    for (int64_t item = part.first_item; item < part.last_item; item++) {
        int64_t tile = part.first_tile + item % part.tiles;
        int first = (int)(item / part.tiles) * V, here = vectors - first < V ? vectors - first : V;
        int block = first * VL / BLOCK, output = first * VL;
        const uint8_t *x[MAX_PIXELS], *residual[MAX_PIXELS];
        uint8_t *y[MAX_PIXELS];
        pixels_at(op, s, P, (int)tile * P, x, y);
        for (int p = 0; p < P; p++) y[p] += packed->first + output;
        if (op->has_residual) residuals_at(op, s, P, (int)tile * P, packed->first + output, residual);
        c.step = groups_of_block(packed->groups, block) * 64;
        c.w = packed->weight + (int64_t)block * BLOCK * 4 * taps * packed->fours + (output % BLOCK) * 4;
        c.scale = packed->scale + output, c.bias = packed->bias + output;
        if (op->has_residual) c.residual_scale = op->residual_scale + packed->first + output;
        shape->with[here](x, &c, y, op->has_residual ? residual : NULL);
    }
}

static void columns(const Op *op, const State *s, const Packed *packed, int member, int members) {
    const int vectors = packed->groups * GROUP / VL, pixels = op->y.height * op->y.width;
    if (!vectors) return; /* no output is kept */
    if (vectors >= NV && prefers_nine(pixels)) columns_in(2, &OF_NINE, op, s, packed, member, members);
    else columns_in(NV, tile_for(vectors, pixels), op, s, packed, member, members);
}

/* ---- packing ---- */

/* Put the weights of one tap for 4 inputs side by side. rows: the weights of a block of outputs for each input, in the order that
 * the host lays out: output 16k + 4l + j is byte 16l + 4k + j. Writes the given number of groups, 64 bytes each. */
#if VB >= 32
#if VB == 64
typedef __m512i lanes;
#define LANES_AT(p) _mm512_loadu_si512((const void *)(p))
#define PUT_LANES(p, v) _mm512_storeu_si512((void *)(p), v)
#define LOW_BYTES _mm512_unpacklo_epi8
#define HIGH_BYTES _mm512_unpackhi_epi8
#define LOW_PAIRS _mm512_unpacklo_epi16
#define HIGH_PAIRS _mm512_unpackhi_epi16
#else
typedef __m256i lanes;
#define LANES_AT(p) _mm256_loadu_si256((const __m256i *)(p))
#define PUT_LANES(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define LOW_BYTES _mm256_unpacklo_epi8
#define HIGH_BYTES _mm256_unpackhi_epi8
#define LOW_PAIRS _mm256_unpacklo_epi16
#define HIGH_PAIRS _mm256_unpackhi_epi16
#endif
INLINE void interleave(const int8_t *const *rows, int groups, int8_t *packed) {
    for (int at = 0; at < BLOCK; at += VB) {
        lanes a = LANES_AT(rows[0] + at), b = LANES_AT(rows[1] + at), c = LANES_AT(rows[2] + at), d = LANES_AT(rows[3] + at);
        lanes low_ab = LOW_BYTES(a, b), high_ab = HIGH_BYTES(a, b), low_cd = LOW_BYTES(c, d), high_cd = HIGH_BYTES(c, d);
        PUT_LANES(packed + at, LOW_PAIRS(low_ab, low_cd));
        if (groups > 1) PUT_LANES(packed + 64 + at, HIGH_PAIRS(low_ab, low_cd));
        if (groups > 2) PUT_LANES(packed + 128 + at, LOW_PAIRS(high_ab, high_cd));
        if (groups > 3) PUT_LANES(packed + 192 + at, HIGH_PAIRS(high_ab, high_cd));
    }
}
#else
INLINE void interleave(const int8_t *const *rows, int groups, int8_t *packed) {
    for (int k = 0; k < groups; k++)
        for (int l = 0; l < 4; l++)
            for (int j = 0; j < 4; j++)
                for (int i = 0; i < 4; i++) packed[k * 64 + l * 16 + j * 4 + i] = rows[i][16 * l + 4 * k + j];
}
#endif

/* Pack the weights of the kept inputs for some blocks of outputs; op->weight is [block of outputs][input][tap][output of the block].
 * The kept weights are scattered: those of the next inputs are prefetched. */
static Packed pack_inputs(const Op *op, const State *s, int8_t *packed, int first, int last, int member, int members) {
    static const int8_t none[BLOCK] = {0};
    const int32_t *kept = kept_of(s, op->in_site);
    const int n = s->count[op->in_site], fours = (n + 3) / 4, taps = op->kernel_h * op->kernel_w;
    const int groups = padded(op->y.channels, GROUP) / GROUP;
    const int64_t length = (int64_t)taps * BLOCK; /* of the weights of an input for a block */
    int64_t from, to;
    share(fours, member, members, &from, &to);
    for (int block = first; block < last; block++) {
        const int8_t *weight = op->weight + block * op->x.channels * length;
        const int here = groups_of_block(groups, block);
        int8_t *to_block = packed + (int64_t)(block - first) * BLOCK * 4 * taps * fours;
        for (int64_t four = from; four < to; four++) {
            for (int64_t j = 4 * four + 4; j < 4 * four + 8 && j < n; j++) fetch(weight + kept[j] * length, length, 0, 1);
            const int8_t *rows[4];
            for (int i = 0; i < 4; i++) rows[i] = 4 * four + i < n ? weight + kept[4 * four + i] * length : NULL;
            int8_t *to_four = to_block + four * here * 64;
            for (int tap = 0; tap < taps; tap++, to_four += (int64_t)fours * here * 64) {
                const int8_t *of_tap[4];
                for (int i = 0; i < 4; i++) of_tap[i] = rows[i] ? rows[i] + tap * BLOCK : none;
                interleave(of_tap, here, to_four);
            }
        }
    }
    int last_group = last * GROUPS_OF_BLOCK < groups ? last * GROUPS_OF_BLOCK : groups;
    return (Packed){packed, op->scale + first * BLOCK, op->bias + first * BLOCK, last_group - first * GROUPS_OF_BLOCK, fours,
                    first * BLOCK};
}

/* A convolution that picks inputs. A member of the team takes whole blocks of outputs if there are enough: it computes with the
 * packed weights of a block while these are in the cache of its core. */
static void columns_of_kept(const Op *op, const State *s, int member, Team *team) {
    const int blocks = padded(op->y.channels, BLOCK) / BLOCK, members = team->members;
    int8_t *scratch = (int8_t *)s->scratch;
    if (members > 1 && blocks < 2 * members) {
        Packed packed = pack_inputs(op, s, scratch, 0, blocks, member, members);
        barrier(team);
        columns(op, s, &packed, member, members);
        return;
    }
    const int64_t of_block = (int64_t)BLOCK * op->kernel_h * op->kernel_w * padded(op->x.channels, 4);
    int64_t from, to;
    share(blocks, member, members, &from, &to);
    for (int64_t block = from; block < to; block++) {
        Packed packed = pack_inputs(op, s, scratch + member * of_block, (int)block, (int)block + 1, 0, 1);
        columns(op, s, &packed, 0, 1);
    }
}

/* Pack the weights of the kept outputs and inputs, and the scales of the kept outputs; op->weight is [output][tap][input]. */
static Packed pack_both(const Op *op, const State *s, int member, int members) {
    const int32_t *out = kept_of(s, op->out_site), *in = kept_of(s, op->in_site);
    const int n = s->count[op->out_site], inputs = s->count[op->in_site], fours = (inputs + 3) / 4;
    const int taps = op->kernel_h * op->kernel_w, groups = padded(n, GROUP) / GROUP;
    float *scale = s->scratch, *bias = scale + groups * GROUP;
    int8_t *packed = (int8_t *)(bias + groups * GROUP);
    int64_t from, to;
    share(groups * GROUP, member, members, &from, &to);
    for (int64_t j = from; j < to; j++) {
        int block = (int)(j / BLOCK), here = groups_of_block(groups, block);
        int8_t *to_output = packed + (int64_t)block * BLOCK * 4 * taps * fours + (j % BLOCK) * 4;
        scale[j] = j < n ? op->scale[out[j]] : 0, bias[j] = j < n ? op->bias[out[j]] : 0;
        for (int tap = 0; tap < taps; tap++)
            for (int i = 0; i < 4 * fours; i++)
                to_output[((int64_t)tap * fours + i / 4) * here * 64 + i % 4] =
                    j < n && i < inputs ? op->weight[((int64_t)out[j] * taps + tap) * op->x.channels + in[i]] : 0;
    }
    return (Packed){packed, scale, bias, groups, fours, 0};
}

/* Put 16 bytes of the weights of 4 outputs side by side, 4 bytes of each; step: from the 4 bytes of an output to its next ones. */
typedef int32_t quad __attribute__((vector_size(16), aligned(4), may_alias));
INLINE void turn(const int8_t *const *rows, int64_t at, int8_t *packed, int64_t step) {
    quad a = *(const quad *)(rows[0] + at), b = *(const quad *)(rows[1] + at);
    quad c = *(const quad *)(rows[2] + at), d = *(const quad *)(rows[3] + at);
    quad low_ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), high_ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    quad low_cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), high_cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(quad *)packed = __builtin_shufflevector(low_ab, low_cd, 0, 1, 4, 5);
    *(quad *)(packed + step) = __builtin_shufflevector(low_ab, low_cd, 2, 3, 6, 7);
    *(quad *)(packed + 2 * step) = __builtin_shufflevector(high_ab, high_cd, 0, 1, 4, 5);
    *(quad *)(packed + 3 * step) = __builtin_shufflevector(high_ab, high_cd, 2, 3, 6, 7);
}

/* Pack the weights and scales of the kept outputs for columns; op->weight is laid out for rows. Outputs that fill up the last group
 * have weights of another one, and a scale of zero. The kept weights are scattered: those of the next outputs are prefetched. */
static Packed pack_outputs(const Op *op, const State *s, int member, int members) {
    const int32_t *kept = kept_of(s, op->out_site);
    const int n = s->count[op->out_site], groups = padded(n, GROUP) / GROUP;
    const int taps_of_row = op->kernel_w * op->x.stride, run = padded(taps_of_row, ROW);
    const int64_t length = (int64_t)op->kernel_h * run;
    float *scale = s->scratch, *bias = scale + groups * GROUP;
    int8_t *packed = (int8_t *)(bias + groups * GROUP);
    int64_t from, to;
    share(groups * GROUP / 4, member, members, &from, &to);
    for (int64_t j = 4 * from; j < 4 * to; j += 4) {
        const int8_t *rows[4];
        for (int i = 0; i < 4; i++) {
            int filled = j + i < n, channel = kept[filled ? j + i : n - 1];
            rows[i] = op->weight + channel * length;
            scale[j + i] = filled ? op->scale[channel] : 0, bias[j + i] = filled ? op->bias[channel] : 0;
            if (j + 4 + i < n) fetch(op->weight + kept[j + 4 + i] * length, length, 0, 1);
        }
        const int block = (int)(j / BLOCK);
        const int64_t step = groups_of_block(groups, block) * 64;
        int8_t *to_outputs = packed + block * BLOCK * (int64_t)op->kernel_h * taps_of_row + j % BLOCK * 4;
        for (int ky = 0; ky < op->kernel_h; ky++)
            for (int at = 0; at < taps_of_row; at += 16, to_outputs += 4 * step) turn(rows, ky * run + at, to_outputs, step);
    }
    return (Packed){packed, scale, bias, groups, op->x.stride / 4, 0};
}

/* Whether columns are faster than rows for the n kept outputs of a convolution, though their weights must be packed. Counted in
 * dot products of 64 bytes, as measured with AVX-512: the end of each sum of rows costs SUM, to pack 64 bytes PACK. */
#define SUM 12
#define PACK 10
static int faster_as_columns(const Op *op, int n) {
    const int64_t run = padded(op->kernel_w * op->x.stride, ROW), dots = op->kernel_h * run / 64;
    const int64_t pixels = (int64_t)op->y.height * op->y.width;
    return op->x.stride % 16 == 0 && padded(n, GROUP) * dots * (pixels + PACK) < n * (dots + SUM) * pixels;
}

static void columns_of_outputs(const Op *op, const State *s, int member, Team *team) {
    const int n = s->count[op->out_site];
    if (!faster_as_columns(op, n)) {
        rows(op, s, member, team->members);
        return;
    }
    Packed packed = pack_outputs(op, s, member, team->members);
    barrier(team);
    columns(op, s, &packed, member, team->members);
}

/* ---- the other operations ---- */

typedef uint8_t bytes __attribute__((vector_size(VB), aligned(1), may_alias));
typedef uint8_t narrow __attribute__((vector_size(16), aligned(1), may_alias));
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

#define CHANNELS 16 /* summed at once */
typedef uint16_t wide __attribute__((vector_size(2 * CHANNELS), aligned(2), may_alias));
typedef int32_t wider __attribute__((vector_size(4 * CHANNELS), aligned(4), may_alias));
#define PIXELS_IN_16_BITS 257 /* 257 * 255 is the largest number of 16 bits */

/* Sum one of PARTS parts of the rows of x, for each channel; x points to the first code, or to the first fine byte. */
static void sum_part(const Op *op, const uint8_t *x, int part, int32_t *total) {
    memset(total, 0, sizeof(int32_t) * op->x.stride);
    int64_t first, last;
    share(op->x.height, part, PARTS, &first, &last);
    for (int64_t row = first; row < last; row++)
        for (int start = 0; start < op->x.width; start += PIXELS_IN_16_BITS) {
            int end = start + PIXELS_IN_16_BITS < op->x.width ? start + PIXELS_IN_16_BITS : op->x.width;
            for (int i = 0; i < op->x.stride; i += CHANNELS) {
                const uint8_t *pixels = x + row * op->x.line + i;
                wide sum = {0};
                for (int column = start; column < end; column++)
                    sum += __builtin_convertvector(*(const narrow *)(pixels + (int64_t)column * op->x.stride), wide);
                *(wider *)(total + i) += __builtin_convertvector(sum, wider);
            }
        }
}

/* The scratch of an operation that takes means: PARTS partial sums of the codes, then those of the fine bytes if there are any. */
static int32_t *partial_sums(const Op *op, const State *s, int fine) {
    return (int32_t *)s->scratch + (int64_t)fine * PARTS * op->x.stride;
}

/* Sum the codes of each channel over the pixels, and the fine bytes if there are any. */
static void sums(const Op *op, const State *s, int member, int members) {
    const uint8_t *x = s->arena + op->x.offset;
    int64_t from, to;
    share(PARTS, member, members, &from, &to);
    for (int64_t part = from; part < to; part++) {
        sum_part(op, x, (int)part, partial_sums(op, s, 0) + part * op->x.stride);
        if (op->x.fine) sum_part(op, x + op->x.fine, (int)part, partial_sums(op, s, 1) + part * op->x.stride);
    }
}

static void add_parts(int32_t *partial, int stride) {
    for (int part = 1; part < PARTS; part++)
        for (int c = 0; c < stride; c++) partial[c] += partial[part * stride + c];
}

/* The means of n channels, given the partial sums, which are added up. */
static void means(const Op *op, const State *s, float *mean, int n) {
    const int32_t pixels = op->x.height * op->x.width, zeros = op->x_zero * pixels, no_loss = NO_LOSS * pixels;
    const float *scale = op->scale;
    int32_t *codes = partial_sums(op, s, 0), *fine = partial_sums(op, s, 1);
    add_parts(codes, op->x.stride);
    for (int c = 0; c < n; c++) mean[c] = (float)(codes[c] - zeros);
    if (op->x.fine) {
        add_parts(fine, op->x.stride);
        for (int c = 0; c < n; c++) mean[c] += (float)(fine[c] - no_loss) * (1.0f / OF_STEP);
    }
    for (int c = 0; c < n; c++) mean[c] *= scale[c];
}

DEFINE_SUMS(float_sums_of, fvec)

/* The product of a row of n floats with a vector, n a multiple of VECTOR: VECTOR partial sums, halved to VL. */
INLINE fvec products(const float *row, const float *vector, int n) {
    fvec acc[VECTOR / VL];
    for (int k = 0; k < VECTOR / VL; k++) acc[k] = (fvec){0};
    for (int i = 0; i < n; i += VECTOR)
        for (int k = 0; k < VECTOR / VL; k++) acc[k] += *(const fvec *)(row + i + k * VL) * *(const fvec *)(vector + i + k * VL);
    for (int half = VECTOR / VL / 2; half; half /= 2)
        for (int k = 0; k < half; k++) acc[k] += acc[k + half];
    return acc[0];
}

/* Multiply a matrix (rows, n) with a vector, and add a bias: VL rows at once. The partial sums of a row are always halved in the same
 * order, whatever the processor. Of the rows past the end the last one is computed again. */
static void layer(const float *weight, const float *bias, const float *vector, int rows, int n, float *out) {
    for (int first = 0; first < rows; first += VL) {
        fvec partial[VL];
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) {
            int row = first + LANE[i] < rows ? first + LANE[i] : rows - 1;
            partial[i] = products(weight + (int64_t)row * n, vector, n);
        }
        fvec sums = float_sums_of(partial);
        for (int i = 0; i < VL && first + i < rows; i++) out[first + i] = bias[first + i] + sums[i];
    }
}

/* Decide the mask of a gate: an entry is open where bias2 + weight2 . relu(bias + weight . mean) >= 0. */
static void decide(const Op *op, State *s) {
    const Site *site = s->sites + op->site;
    const int units = padded(op->hidden, VECTOR);
    float *mean = (float *)partial_sums(op, s, op->x.fine ? 2 : 1), *hidden = mean + op->x.stride, *logits = hidden + units;
    means(op, s, mean, op->x.stride);
    layer((const float *)op->weight, op->bias, mean, op->hidden, op->x.stride, hidden);
    for (int h = 0; h < op->hidden; h++) hidden[h] = hidden[h] < 0 ? 0 : hidden[h];
    for (int h = op->hidden; h < units; h++) hidden[h] = 0;
    layer(op->weight2, op->bias2, hidden, site->channels, units, logits);
    int count = 0;
    for (int c = 0; c < site->channels; c++)
        if (logits[c] >= 0) s->kept[site->first + count++] = c;
    s->count[op->site] = count;
}

/* Copy x to y, whose codes may have other steps and another zero. */
static void copy(const Op *op, const State *s, int member, int members) {
    int64_t from, to;
    share(op->y.height, member, members, &from, &to);
    for (int64_t row = from; row < to; row++)
        for (int column = 0; column < op->y.width; column++) {
            const uint8_t *x = s->arena + op->x.offset + row * op->x.line + (int64_t)column * op->x.stride;
            uint8_t *y = s->arena + op->y.offset + row * op->y.line + (int64_t)column * op->y.stride;
            for (int i = 0; i < op->y.stride; i += VL) {
                fvec v = numbers_at(x + i, op->x.fine) * *(const fvec *)(op->scale + i) + *(const fvec *)(op->bias + i);
                ivec numbers = numbers_from(v, op->y.fine, op->low);
                put_numbers(y + i, op->y.fine, 1, &numbers);
            }
        }
}

static void execute(const Op *op, State *s, int member, Team *team) {
    int members = team->members;
    Packed packed = {op->weight, op->scale, op->bias, padded(op->y.channels, GROUP) / GROUP, padded(op->x.channels, 4) / 4, 0};
    switch (op->kind) {
    case ROWS:
        columns_of_outputs(op, s, member, team);
        break;
    case COLUMNS:
        if (op->in_site >= 0) columns_of_kept(op, s, member, team);
        else columns(op, s, &packed, member, members);
        break;
    case PACKED:
        packed = pack_both(op, s, member, members);
        barrier(team);
        columns(op, s, &packed, member, members);
        break;
    case MAXPOOL:
        maxpool(op, s, member, members);
        break;
    case MEAN:
        sums(op, s, member, members);
        barrier(team);
        if (!member) means(op, s, (float *)(s->arena + op->y.offset), op->x.channels);
        break;
    case GATE:
        sums(op, s, member, members);
        barrier(team);
        if (!member) decide(op, s);
        break;
    case ACTIVATE:
        copy(op, s, member, members);
        break;
    }
}

/* The codes of n pixels of an image, n at most VL, each with its three channels and a byte that no weight reads. */
INLINE ivec pixels_from(const Program *program, const float *image, int64_t plane, int n) {
    ivec pixels = {0};
    for (int channel = 0; channel < 3; channel++) {
        const float *from = image + channel * plane;
        fvec v = {0};
        if (n == VL) v = *(const fvec *)from;
        else memcpy(&v, from, sizeof(float) * n);
        pixels |= codes_from(v * program->input_scale + program->input_zero, 0) << 8 * channel;
    }
    return pixels;
}

static void put_image(const Program *program, State *s, const float *image, int member, int members) {
    const Activation *t = &program->input;
    const int64_t plane = (int64_t)t->height * t->width;
    int64_t from, to;
    share(t->height, member, members, &from, &to);
    for (int64_t row = from; row < to; row++) {
        uint8_t *y = s->arena + t->offset + row * t->line;
        const float *x = image + row * t->width;
        int column = 0;
        for (; column + VL <= t->width; column += VL) *(ivec *)(y + 4 * column) = pixels_from(program, x + column, plane, VL);
        if (column == t->width) continue;
        ivec last = pixels_from(program, x + column, plane, t->width - column);
        memcpy(y + 4 * column, &last, 4 * (t->width - column));
    }
}
