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
#include <stdint.h>

#if defined(__AVX512F__)
#define VL 16
#define NV 4 /* vectors of outputs that the columns kernel holds for each pixel */
#define REGISTERS 32
#elif defined(__AVX__)
#define VL 8
#define NV 2
#define REGISTERS 16
#elif defined(__aarch64__)
#define VL 4
#define NV 4
#define REGISTERS 32
#else
#define VL 4
#define NV 2
#define REGISTERS 16
#endif
#if defined(__AVX512F__)
#define CP 6 /* pixels that the columns kernel computes at once */
#else
#define CP 5
#endif
#define MOST_PIXELS (REGISTERS == 32 ? 2 * CP : 8) /* the same with half of the vectors or less */

typedef float vec __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(VL * 4), aligned(4), may_alias));

typedef float Element, Weight;
#define VECTOR VL
#define BLOCK (VL * NV)
#include "program.h"

#include "activations.h"

INLINE float relu_one(float v) { return v < 0 ? 0 : v; }

INLINE float sum_of(vec v) {
    float lanes[VL], total = 0;
    memcpy(lanes, &v, sizeof v);
    for (int half = VL / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    total = lanes[0];
    return total;
}

#include "lanes.h"
DEFINE_SUMS(sums_of, vec)
DEFINE_TRANSPOSE(transpose, vec)

/* Keep a vector in a register here: GCC would read it again each time, or move sums from register to register. */
#if defined(__x86_64__)
#define HOLD(v) __asm__ volatile("" : "+v"(v))
#else
#define HOLD(v)
#endif

#include "rows.h"
#include "columns.h"
#include "picked.h"
#include "depthwise.h"
#include "channelwise.h"
#include "attention.h"
#include "grouped.h"
#include "small_groups.h"

/* Pack the kept weights of a convolution that picks both: [kept output][tap][kept input, padded to whole vectors].
 * Returns the padded number of inputs. */
static int pack(const Op *op, const State *s, int member, int members, float *packed) {
    const int32_t *out = kept_of(s, op->out_site), *in = kept_of(s, op->in_site);
    int n = s->count[op->out_site], inputs = s->count[op->in_site];
    int depth = (inputs + VL - 1) / VL * VL, taps = op->kernel_h * op->kernel_w;
    int full = (op->x.channels + VL - 1) / VL * VL;
    int64_t from, to;
    share(n, member, members, &from, &to);
    for (int64_t j = from; j < to; j++)
        for (int tap = 0; tap < taps; tap++) {
            const float *w = op->weight + ((int64_t)out[j] * taps + tap) * full;
            float *to_row = packed + (j * taps + tap) * depth;
            for (int i = 0; i < inputs; i++) to_row[i] = w[in[i]];
            for (int i = inputs; i < depth; i++) to_row[i] = 0;
        }
    return depth;
}

static void maxpool(const Op *op, const State *s, int member, int members) {
    int64_t from, to;
    share(op->y.height, member, members, &from, &to);
    for (int row = (int)from; row < to; row++)
        for (int column = 0; column < op->y.width; column++) {
            const Window window = window_at(op, s, row, column);
            const float *x = window.x;
            float *y = window.y;
            for (int i = 0; i < op->y.stride; i += VL) {
                vec best = *(const vec *)(x + i);
                for (int r = 0; r < window.rows; r++)
                    for (int c = 0; c < window.columns; c++) {
                        vec v = *(const vec *)(x + (int64_t)r * op->x.line + (int64_t)c * op->x.stride + i);
                        ivec kept = ~(v > best) & (v == v); /* a NaN wins, as in torch */
                        best = (vec)((kept & (ivec)best) | (~kept & (ivec)v));
                    }
                *(vec *)(y + i) = best;
            }
        }
}

/* Sum each channel over the pixels. The rows are always split into the same PARTS, so that a gate decides the same with any number
 * of threads. */
static void sums(const Op *op, const State *s, int member, int members) {
    const int channels = present(op, s);
    int64_t from, to;
    share(PARTS, member, members, &from, &to);
    for (int64_t part = from; part < to; part++) {
        float *total = s->scratch + part * op->x.stride;
        memset(total, 0, sizeof(float) * channels);
        int64_t first, last;
        share(op->x.height, (int)part, PARTS, &first, &last);
        for (int64_t row = first; row < last; row++) {
            const float *x = s->arena + op->x.offset + row * op->x.line;
            for (int i = 0; i < channels; i += VL * 4) {
                int vectors = (channels - i) / VL < 4 ? (channels - i) / VL : 4;
                vec acc[4] = {{0}, {0}, {0}, {0}};
                for (int column = 0; column < op->x.width; column++)
                    for (int v = 0; v < vectors; v++) acc[v] += *(const vec *)(x + (int64_t)column * op->x.stride + i + v * VL);
                for (int v = 0; v < vectors; v++) *(vec *)(total + i + v * VL) += acc[v];
            }
        }
    }
}

static void means(const Op *op, const State *s, float *mean) {
    float share_of_one = 1.0f / ((float)op->x.height * (float)op->x.width);
    for (int i = 0, channels = present(op, s); i < channels; i += VL) {
        vec total = *(const vec *)(s->scratch + i);
        for (int part = 1; part < PARTS; part++) total += *(const vec *)(s->scratch + (int64_t)part * op->x.stride + i);
        *(vec *)(mean + i) = total * share_of_one;
    }
}

static float dot(const float *a, const float *b, int n) { /* n: a multiple of VL */
    vec acc[2] = {{0}, {0}};
    int i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        acc[0] += *(const vec *)(a + i) * *(const vec *)(b + i);
        acc[1] += *(const vec *)(a + i + VL) * *(const vec *)(b + i + VL);
    }
    for (; i < n; i += VL) acc[0] += *(const vec *)(a + i) * *(const vec *)(b + i);
    return sum_of(acc[0] + acc[1]);
}

/* Decide the mask of a gate: an entry is open where bias2 + weight2 . relu(bias + weight . mean) >= 0. */
static void decide(const Op *op, State *s) {
    float *mean = s->scratch + (int64_t)PARTS * op->x.stride, *hidden = mean + op->x.stride;
    int padded = (op->hidden + VL - 1) / VL * VL, inputs = (op->x.channels + VL - 1) / VL * VL;
    means(op, s, mean);
    for (int h = 0; h < op->hidden; h++)
        hidden[h] = relu_one(op->bias[h] + dot(op->weight + (int64_t)h * inputs, mean, inputs));
    for (int h = op->hidden; h < padded; h++) hidden[h] = 0;
    const Site *site = s->sites + op->site;
    int count = 0;
    for (int c = 0; c < site->channels; c++)
        if (op->bias2[c] + dot(op->weight2 + (int64_t)c * padded, hidden, padded) >= 0) s->kept[site->first + count++] = c;
    s->count[op->site] = count;
    widen(s, op->site);
}

static void execute(const Op *op, State *s, int member, Team *team) {
    int members = team->members;
    switch (op->kind) {
    case ROWS:
        columns_of_outputs(op, s, member, team);
        break;
    case COLUMNS:
        columns(op, s, member, members, (Block){op->weight, op->bias, op->y.channels});
        break;
    case DEPTHWISE:
        depthwise(op, s, member, team);
        break;
    case PACKED: {
        int depth = pack(op, s, member, members, s->scratch);
        barrier(team);
        rows(op, s, member, members, s->scratch, depth, 0);
        break;
    }
    case MAXPOOL:
        maxpool(op, s, member, members);
        break;
    case MEAN:
        sums(op, s, member, members);
        barrier(team);
        if (!member) means(op, s, s->arena + op->y.offset);
        break;
    case GATE:
        sums(op, s, member, members);
        barrier(team);
        if (!member) decide(op, s);
        break;
    case ACTIVATE:
        activate(op, s, member, members);
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
