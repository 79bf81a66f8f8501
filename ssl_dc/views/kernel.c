/* Draws views (ssl_dc/views/batched.py) image by image, in float32: crop and resize, flip, colours, blur, solarisation, normalisation.
 *
 * Every formula is that of batched.py; only sums are taken in another order. What becomes of an image depends on that image and its
 * draws alone: not on its batch, nor on the number of threads.
 *
 * A part is cut out and resized in two passes: first down the columns, straight from the bytes of the image, then along the row. A view
 * lies in three planes, one for each channel. Colours are changed chunk by chunk, so that all changes of a chunk find it in the cache.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define MAX_THREADS 64
#define CHUNK 1024 /* pixels */
#define TAPS_AT_ONCE 4
#define REACH 12  /* pixels from the middle of the widest Gaussian at which it is nothing in float32 */
#define BORDER 8  /* pixels by which the edge of an image goes on, for the blur */
#define SOLARIZE_THRESHOLD 128

typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));
typedef float lanes __attribute__((vector_size(64), aligned(4), may_alias));

enum change { BRIGHTNESS = 0, CONTRAST = 1, SATURATION = 2, HUE = 3, CHANGES = 4, NONE = -1 };

/* How to draw the view of one image. */
typedef struct {
    int32_t top, left, height, width; /* the part of the image */
    int32_t flip, grey, blur, solarize;
    int32_t order[CHANGES];  /* changes of colour, the first one first; NONE ends them */
    float amount[CHANGES];   /* of each kind of change */
    float gaussian[REACH + 1]; /* of the blur, by distance in pixels, up to a factor */
} Draw;

typedef struct {
    const uint8_t *images; /* (n, height, width, 3) */
    int64_t n;
    int32_t height, width;
    const Draw *draws;     /* (n) */
    const float *scale, *shift; /* (3): a value v becomes v * scale + shift */
    int32_t size;
    float *views;          /* (n, size, size, 3) */
    atomic_llong next;     /* the image that nobody has begun */
    atomic_int failed;     /* whether memory ran out */
} Batch;

/* ---- memory ---- */

/* The memory of one thread. It grows to what the largest image needs. */
typedef struct {
    float *floats;
    size_t count;
} Scratch;

static float *floats_of(Scratch *scratch, size_t count) {
    if (count > scratch->count) {
        free(scratch->floats);
        scratch->floats = malloc(count * sizeof(float));
        scratch->count = scratch->floats ? count : 0;
    }
    return scratch->floats;
}

/* ---- crop and resize ---- */

/* For each pixel of a resized line, the pixels that it is made of and their weights. */
typedef struct {
    int32_t taps;
    int32_t *first; /* (size): the first pixel, counted from the start of the part */
    float *weights; /* (size, taps) */
} Resampling;

/* The most taps that a part of so many pixels can need. */
static int most_taps(int length, int size) {
    int64_t taps = 4 * ((int64_t)length / size + 1) + 3;
    return taps < length ? (int)taps : length;
}

INLINE float bicubic(float distance) {
    float near = ((1.5f * distance - 2.5f) * distance) * distance + 1;
    float far = (((distance - 5) * distance + 8) * distance - 4) * -0.5f;
    return distance < 1 ? near : distance < 2 ? far : 0;
}

/* As batched.resampling, without the zeros. */
static void prepare(Resampling *r, int start, int length, int size, int flip) {
    int most = most_taps(length, size);
    float scale = (float)length / size, widening = scale > 1 ? scale : 1;
    int32_t count[size];
    r->taps = 1;
    for (int x = 0; x < size; x++) {
        int place = flip ? size - 1 - x : x;
        float centre = start + (x + 0.5f) * scale;
        int begin = (int)(centre - 2 * widening - 0.5f) - start, end;
        begin = begin < 0 ? 0 : begin > length - 1 ? length - 1 : begin;
        end = length - begin < most ? length : begin + most;
        float *weights = r->weights + (size_t)place * most, sum = 0;
        int used = 0;
        for (int pixel = begin; pixel < end; pixel++) {
            float distance = (start + pixel + 0.5f - centre) / widening;
            float weight = bicubic(distance < 0 ? -distance : distance);
            if (!used && weight == 0 && pixel + 1 < end) {
                begin++;
                continue;
            }
            weights[used++] = weight;
            sum += weight;
        }
        while (used > 1 && weights[used - 1] == 0) used--;
        for (int tap = 0; tap < used; tap++) weights[tap] /= sum;
        count[place] = used;
        r->first[place] = begin;
        if (used > r->taps) r->taps = used;
    }
    /* All pixels get the same number of taps, which stay inside the part: the rest has weight zero. */
    for (int x = 0; x < size; x++) {
        int late = r->first[x] + r->taps - length, moved = late > 0 ? late : 0;
        float from[count[x]], *to = r->weights + (size_t)x * r->taps;
        memcpy(from, r->weights + (size_t)x * most, count[x] * sizeof(float));
        for (int tap = 0; tap < r->taps; tap++) to[tap] = 0;
        memcpy(to + moved, from, count[x] * sizeof(float));
        r->first[x] -= moved;
    }
}

/* line[i] (=, +=) the sum over rows of weights[row] * rows[row][i]. */
INLINE void add_rows(float *restrict line, const uint8_t *restrict rows, size_t stride, const float *weights, int taps, int count, int first) {
    const uint8_t *b = rows + stride, *c = b + stride, *d = c + stride;
    float wa = weights[0], wb = taps > 1 ? weights[1] : 0, wc = taps > 2 ? weights[2] : 0, wd = taps > 3 ? weights[3] : 0;
    switch (taps) {
    case 1: for (int i = 0; i < count; i++) line[i] = (first ? 0 : line[i]) + wa * rows[i]; break;
    case 2: for (int i = 0; i < count; i++) line[i] = (first ? 0 : line[i]) + wa * rows[i] + wb * b[i]; break;
    case 3: for (int i = 0; i < count; i++) line[i] = (first ? 0 : line[i]) + wa * rows[i] + wb * b[i] + wc * c[i]; break;
    default: for (int i = 0; i < count; i++) line[i] = (first ? 0 : line[i]) + wa * rows[i] + wb * b[i] + wc * c[i] + wd * d[i];
    }
}

/* One line of a part, three channels side by side, from the lines of the image. */
static void down_columns(float *line, const uint8_t *rows, size_t stride, const float *weights, int taps, int count) {
    int some = taps < TAPS_AT_ONCE ? taps : TAPS_AT_ONCE;
    add_rows(line, rows, stride, weights, some, count, 1);
    for (int tap = some; tap < taps; tap += some) {
        some = taps - tap < TAPS_AT_ONCE ? taps - tap : TAPS_AT_ONCE;
        add_rows(line, rows + tap * stride, stride, weights + tap, some, count, 0);
    }
}

/* A row of pixels, four floats each of which the last means nothing, from a line of three floats a pixel. */
static void along_row(float *restrict row, const float *restrict line, const Resampling *across, int size) {
    int taps = across->taps;
    for (int x = 0; x < size; x++) {
        const float *from = line + 3 * across->first[x], *weights = across->weights + (size_t)x * taps;
        quad sum = {0};
        for (int tap = 0; tap < taps; tap++) sum += weights[tap] * *(const quad *)(from + 3 * tap);
        *(quad *)(row + 4 * x) = sum;
    }
}

INLINE float clamp(float value) {
    value = value < 0 ? 0 : value;
    return value > 255 ? 255 : value;
}

static size_t resampling_floats(const Draw *draw, int size) {
    return 2 * (size_t)size + (size_t)size * (most_taps(draw->height, size) + (size_t)most_taps(draw->width, size));
}

static size_t crop_floats(const Draw *draw, int size) {
    return resampling_floats(draw, size) + 3 * (size_t)draw->width + 1 + 4 * (size_t)size;
}

/* Cut the part out of an image (.., width, 3) and resize it to planes (3, size, size). memory: crop_floats. */
static void crop(float *planes, const uint8_t *image, int width, const Draw *draw, int size, float *memory) {
    Resampling down = {.first = (int32_t *)memory, .weights = memory + 2 * size};
    Resampling across = {.first = (int32_t *)memory + size, .weights = down.weights + (size_t)size * most_taps(draw->height, size)};
    float *line = memory + resampling_floats(draw, size), *row = line + 3 * (size_t)draw->width + 1;
    size_t stride = 3 * (size_t)width, area = (size_t)size * size;
    prepare(&down, draw->top, draw->height, size, 0);
    prepare(&across, draw->left, draw->width, size, draw->flip);
    line[3 * draw->width] = 0; /* is read together with the last pixel */
    for (int y = 0; y < size; y++) {
        const uint8_t *rows = image + (size_t)(draw->top + down.first[y]) * stride + 3 * (size_t)draw->left;
        down_columns(line, rows, stride, down.weights + (size_t)y * down.taps, down.taps, 3 * draw->width);
        along_row(row, line, &across, size);
        float *restrict red = planes + (size_t)y * size, *restrict green = red + area, *restrict blue = green + area;
        for (int x = 0; x < size; x++) {
            red[x] = clamp(row[4 * x]);
            green[x] = clamp(row[4 * x + 1]);
            blue[x] = clamp(row[4 * x + 2]);
        }
    }
}

/* ---- colours ---- */

/* The channels of some pixels. */
typedef struct {
    float *red, *green, *blue;
} Pixels;

INLINE float luma(float red, float green, float blue) { return 0.299f * red + 0.587f * green + 0.114f * blue; }

INLINE float sixth_of(float red, float green, float blue, float value, float chroma) {
    float apart = value == red ? green - blue : value == green ? blue - red : red - green;
    float begin = value == red ? 0.0f : value == green ? 2.0f : 4.0f;
    return apart / (chroma < 1e-6f ? 1e-6f : chroma) + begin;
}

/* What chroma is taken from a channel at a place on the circle, -3 to 13: 0 to 1. */
INLINE float part_at(float place) {
    place -= place >= 6 ? 6.0f : 0.0f;
    place -= place >= 6 ? 6.0f : 0.0f;
    place += place < 0 ? 6.0f : 0.0f;
    float part = place < 4 - place ? place : 4 - place;
    part = part < 0 ? 0 : part;
    return part > 1 ? 1 : part;
}

/* mean: of the luma, for the contrast. */
static void change(Pixels pixels, int count, int kind, float amount, float mean) {
    float *restrict red = pixels.red, *restrict green = pixels.green, *restrict blue = pixels.blue;
    switch (kind) {
    case BRIGHTNESS:
        for (int i = 0; i < count; i++) {
            red[i] = clamp(red[i] * amount);
            green[i] = clamp(green[i] * amount);
            blue[i] = clamp(blue[i] * amount);
        }
        break;
    case CONTRAST:
        for (int i = 0; i < count; i++) {
            red[i] = clamp(mean + amount * (red[i] - mean));
            green[i] = clamp(mean + amount * (green[i] - mean));
            blue[i] = clamp(mean + amount * (blue[i] - mean));
        }
        break;
    case SATURATION:
        for (int i = 0; i < count; i++) {
            float grey = luma(red[i], green[i], blue[i]);
            red[i] = clamp(grey + amount * (red[i] - grey));
            green[i] = clamp(grey + amount * (green[i] - grey));
            blue[i] = clamp(grey + amount * (blue[i] - grey));
        }
        break;
    case HUE:
        for (int i = 0; i < count; i++) {
            float r = red[i], g = green[i], b = blue[i];
            float value = r > g ? r : g, least = r < g ? r : g;
            value = value > b ? value : b;
            least = least < b ? least : b;
            float chroma = value - least, turned = sixth_of(r, g, b, value, chroma) + 6 * amount;
            red[i] = value - chroma * part_at(turned + 5);
            green[i] = value - chroma * part_at(turned + 3);
            blue[i] = value - chroma * part_at(turned + 1);
        }
        break;
    }
}

static void make_grey(Pixels pixels, int count) {
    float *restrict red = pixels.red, *restrict green = pixels.green, *restrict blue = pixels.blue;
    for (int i = 0; i < count; i++) red[i] = green[i] = blue[i] = luma(red[i], green[i], blue[i]);
}

static double sum_of_luma(Pixels pixels, int count) {
    lanes sums = {0};
    const int width = sizeof(lanes) / sizeof(float);
    int i = 0;
    double total = 0;
    for (; i + width <= count; i += width) {
        lanes red = *(const lanes *)(pixels.red + i), green = *(const lanes *)(pixels.green + i), blue = *(const lanes *)(pixels.blue + i);
        sums += 0.299f * red + 0.587f * green + 0.114f * blue;
    }
    for (int lane = 0; lane < width; lane++) total += sums[lane];
    for (; i < count; i++) total += luma(pixels.red[i], pixels.green[i], pixels.blue[i]);
    return total;
}

/* Solarise, normalise, and write pixel by pixel. */
static void finish(float *restrict out, Pixels pixels, int count, int solarize, const float *scale, const float *shift) {
    const float *restrict channels[3] = {pixels.red, pixels.green, pixels.blue};
    for (int c = 0; c < 3; c++) {
        const float *restrict from = channels[c];
        float a = scale[c], b = shift[c];
        if (solarize)
            for (int i = 0; i < count; i++) out[3 * i + c] = (from[i] >= SOLARIZE_THRESHOLD ? 255 - from[i] : from[i]) * a + b;
        else
            for (int i = 0; i < count; i++) out[3 * i + c] = from[i] * a + b;
    }
}

static Pixels pixels_from(float *planes, size_t area, size_t first) {
    return (Pixels){planes + first, planes + area + first, planes + 2 * area + first};
}

static int chunk_of(size_t area, size_t first) { return area - first < CHUNK ? (int)(area - first) : CHUNK; }

/* Change the colours of planes (3, area) as the draw says. */
static void recolour(float *planes, size_t area, const Draw *draw) {
    int until = 0; /* changes before the contrast, which needs to know the whole image */
    while (until < CHANGES && draw->order[until] != NONE && draw->order[until] != CONTRAST) until++;
    int has_contrast = until < CHANGES && draw->order[until] == CONTRAST;
    double sum = 0;
    for (size_t first = 0; first < area && (has_contrast || until); first += CHUNK) {
        Pixels pixels = pixels_from(planes, area, first);
        int count = chunk_of(area, first);
        for (int i = 0; i < until; i++) change(pixels, count, draw->order[i], draw->amount[draw->order[i]], 0);
        if (has_contrast) sum += sum_of_luma(pixels, count);
    }
    float mean = (float)(sum / area);
    for (size_t first = 0; first < area && (has_contrast || draw->grey); first += CHUNK) {
        Pixels pixels = pixels_from(planes, area, first);
        int count = chunk_of(area, first);
        for (int i = until; i < CHANGES && draw->order[i] != NONE; i++)
            change(pixels, count, draw->order[i], draw->amount[draw->order[i]], mean);
        if (draw->grey) make_grey(pixels, count);
    }
}

/* ---- blur ---- */

static size_t blur_floats(int size) { return (size_t)size * size + 2 * (size_t)size + 2 * REACH; }

/* Convolve a plane (size, size) with a Gaussian. memory: blur_floats. */
static void blur(float *plane, const float *gaussian, int size, float *memory) {
    float *by_row = memory, *restrict weight = by_row + (size_t)size * size, *restrict sum = weight + size, *wide = sum; /* size + 2 REACH */
    int reach = 0;
    while (reach < REACH && gaussian[reach + 1] > 0) reach++;
    for (int x = 0; x < size; x++) { /* pixels further outside than the border count for nothing */
        float total = 0;
        for (int o = -reach; o <= reach; o++) total += x + o >= -BORDER && x + o < size + BORDER ? gaussian[o < 0 ? -o : o] : 0;
        weight[x] = 1 / total;
    }
    for (int y = 0; y < size; y++) {
        const float *row = plane + (size_t)y * size;
        float *restrict out = by_row + (size_t)y * size;
        for (int x = 0; x < REACH; x++) {
            wide[x] = x < REACH - BORDER ? 0 : row[0];
            wide[REACH + size + x] = x < BORDER ? row[size - 1] : 0;
        }
        memcpy(wide + REACH, row, size * sizeof(float));
        for (int x = 0; x < size; x++) out[x] = gaussian[0] * wide[REACH + x];
        for (int o = 1; o <= reach; o++)
            for (int x = 0; x < size; x++) out[x] += gaussian[o] * (wide[REACH + x - o] + wide[REACH + x + o]);
        for (int x = 0; x < size; x++) out[x] *= weight[x];
    }
    for (int y = 0; y < size; y++) {
        float *restrict out = plane + (size_t)y * size;
        for (int x = 0; x < size; x++) out[x] = 0;
        for (int o = -reach; o <= reach; o++) {
            int from = y + o;
            if (from < -BORDER || from >= size + BORDER) continue;
            from = from < 0 ? 0 : from > size - 1 ? size - 1 : from;
            const float *restrict row = by_row + (size_t)from * size;
            float w = gaussian[o < 0 ? -o : o] * weight[y];
            for (int x = 0; x < size; x++) out[x] += w * row[x];
        }
    }
}

/* ---- views ---- */

static int fits(const Draw *draw, int height, int width) {
    return draw->top >= 0 && draw->left >= 0 && draw->height > 0 && draw->width > 0 && draw->height <= height - draw->top
        && draw->width <= width - draw->left;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* The view of one image; returns whether there was memory for it. */
static int draw_view(const Batch *batch, int64_t number, Scratch *scratch) {
    const Draw *draw = batch->draws + number;
    int size = batch->size;
    size_t area = (size_t)size * size;
    float *planes = floats_of(scratch, 3 * area + larger(crop_floats(draw, size), draw->blur ? blur_floats(size) : 0));
    if (!planes) return 0;
    float *memory = planes + 3 * area, *out = batch->views + (size_t)number * 3 * area;
    crop(planes, batch->images + (size_t)number * batch->height * batch->width * 3, batch->width, draw, size, memory);
    recolour(planes, area, draw);
    if (draw->blur)
        for (int c = 0; c < 3; c++) blur(planes + c * area, draw->gaussian, size, memory);
    for (size_t first = 0; first < area; first += CHUNK)
        finish(out + 3 * first, pixels_from(planes, area, first), chunk_of(area, first), draw->solarize, batch->scale, batch->shift);
    return 1;
}

static void *draw_views(void *argument) {
    Batch *batch = argument;
    Scratch scratch = {0};
    for (int64_t number; (number = atomic_fetch_add(&batch->next, 1)) < batch->n;)
        if (!draw_view(batch, number, &scratch)) atomic_store(&batch->failed, 1);
    free(scratch.floats);
    return NULL;
}

enum outcome { DRAWN = 0, NO_MEMORY = 1, OUTSIDE = 2 };

/* Views (n, size, size, 3) of images (n, height, width, 3), by so many threads. */
int ssl_dc_draw_views(const uint8_t *images, int64_t n, int32_t height, int32_t width, const Draw *draws, const float *scale,
                      const float *shift, int32_t size, float *views, int threads) {
    Batch batch = {.images = images, .n = n, .height = height, .width = width, .draws = draws, .scale = scale, .shift = shift,
                   .size = size, .views = views};
    for (int64_t number = 0; number < n; number++)
        if (!fits(draws + number, height, width)) return OUTSIDE;
    pthread_t others[MAX_THREADS];
    int started = 0;
    while (started + 1 < threads && started < MAX_THREADS && started + 1 < n
           && !pthread_create(&others[started], NULL, draw_views, &batch))
        started++;
    draw_views(&batch);
    for (int other = 0; other < started; other++) pthread_join(others[other], NULL);
    return atomic_load(&batch.failed) ? NO_MEMORY : DRAWN;
}

/* The part of one image (height, width, 3), resized and perhaps flipped: (size, size, 3), rounded to bytes. */
int ssl_dc_crop(const uint8_t *image, int32_t height, int32_t width, const Draw *draw, int32_t size, uint8_t *part) {
    size_t area = (size_t)size * size;
    if (!fits(draw, height, width)) return OUTSIDE;
    float *planes = malloc((3 * area + crop_floats(draw, size)) * sizeof(float));
    if (!planes) return NO_MEMORY;
    crop(planes, image, width, draw, size, planes + 3 * area);
    for (size_t i = 0; i < area; i++)
        for (int c = 0; c < 3; c++) part[3 * i + c] = (uint8_t)(planes[c * area + i] + 0.5f);
    free(planes);
    return DRAWN;
}

int ssl_dc_size_of_draw(void) { return sizeof(Draw); }
int ssl_dc_reach(void) { return REACH; }
