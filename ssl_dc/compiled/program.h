/* A program: a plan (ssl_dc/compiled/plan.py) at one image size, and the calls that run it.
 *
 * A kernel that includes this file first defines the types Element (of activations) and Weight, and the macros VECTOR and BLOCK.
 * It must define execute and put_image. What a kernel cannot compute is a host operation: the kernel stops before it, the host
 * (Python) does it, and the kernel goes on.
 */
#ifndef SSL_DC_PROGRAM_H
#define SSL_DC_PROGRAM_H

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "workers.h"

#define INLINE static inline __attribute__((always_inline))

enum kind {
    ROWS = 0, COLUMNS = 1, PACKED = 2, MAXPOOL = 3, MEAN = 4, GATE = 5, ACTIVATE = 6, HOST = 7,
    /* of the float32 kernel only */
    DEPTHWISE = 8, ADD = 9, MULTIPLY = 10, LAYER_NORM = 11,
    ATTENTION = 12, GROUPED = 13, SMALL_GROUPS = 14,
    NOTHING = 15 /* the value was computed when the program was made */
};

/* The place of an activation in the arena. The channels of a pixel are side by side, except in planar input images. */
typedef struct {
    int64_t offset; /* index of the first element of the first pixel inside the border */
    int32_t height, width, channels;
    int32_t stride, line, plane; /* elements from a pixel, a row, a channel to the next */
    int64_t fine;   /* for kernels whose elements are codes: elements from a code to its fine byte; 0: there is none */
} Activation;

typedef struct {
    int32_t kind;
    int32_t activation;             /* a number of enum activation; kernels without one know 0 (none) and 1 (ReLU) */
    int32_t kernel_h, kernel_w, step, pad_h, pad_w;
    int32_t in_site, out_site;      /* the sites whose masks pick inputs and outputs, or the channels of x; -1: none */
    int32_t branch_site, unless;    /* run only if this branch is open (with unless: only if it is shut); -1: always run */
    int32_t has_residual;
    int32_t site, hidden;           /* of a gate: its site, and its number of hidden units */
    Activation x, y, residual;
    const Weight *weight;           /* of a convolution or layer norm, or a factor; of the first layer of a gate, which is float */
    const float *bias;              /* of a convolution or layer norm, of the first layer of a gate, or of a copy of codes */
    const float *weight2, *bias2;   /* of the second layer of a gate */
    /* The rest is for kernels whose elements are codes. */
    const float *scale;             /* for each channel: the codes of y that one unit of the sum of products is worth; the codes of
                                       y that a code, or a number, of x is worth, where x is copied; the value of a code of x over the number of
                                       pixels, where x is averaged */
    const float *residual_scale;    /* for each channel the codes of y that a code, or a number, of the residual is worth */
    float low;                      /* the least code that y may have */
    int32_t x_zero;                 /* the code of 0 in x */
    /* The rest is for the float32 kernel. */
    int32_t group_inputs, group_outputs; /* of a grouped convolution */
    float eps;                      /* of a layer norm: added to the variance */
    int32_t heads, head, value_head; /* of attention: its heads, and the channels of a head in queries and keys, and in values */
    int32_t spans[3];               /* channels from a head to the next, in queries (x), keys (residual) and values (z) */
    float scale_of_scores;          /* of attention */
    Activation z;                   /* of attention: the values */
} Op;

typedef struct {
    int32_t channels; /* width of the mask */
    int32_t first;    /* index of its first entry in the list of all mask entries of an image */
    int32_t span;     /* how many neighbouring channels an entry stands for */
    int32_t wider;    /* another site with the channels that the entries of the same mask stand for; -1: none */
} Site;

typedef struct {
    const Op *ops;
    const Site *sites;
    int32_t n_ops, n_sites;
    int32_t n_masks;  /* number of mask entries of an image, over all sites */
    int32_t features; /* width of the output */
    Activation input; /* 3 channels */
    int64_t output;   /* index of the first element of the features, which are float, in the arena */
    float input_scale, input_zero; /* for kernels whose elements are codes: a pixel has the code pixel * scale + zero */
} Program;

/* The memory in which one image is computed. */
typedef struct {
    const Site *sites;
    Element *arena;
    float *scratch;
    int32_t *kept;  /* for each site the indices of its open entries, from Site.first on */
    int32_t *count; /* for each site the number of its open entries */
} State;

/* Do a member's part of an operation. The caller makes the team wait for all members afterwards. */
static void execute(const Op *op, State *s, int member, Team *team);

/* Copy a member's part of an image (3, H, W) into the arena. */
static void put_image(const Program *program, State *s, const float *image, int member, int members);

static const int32_t *kept_of(const State *s, int site) { return site < 0 ? NULL : s->kept + s->sites[site].first; }
static int count_of(const State *s, int site, int all) { return site < 0 ? all : s->count[site]; }

/* List the channels that the open entries of a site stand for, for each number of channels that an entry has somewhere. */
static void widen(State *s, int site) {
    const int32_t *kept = kept_of(s, site);
    for (int wider = s->sites[site].wider; wider >= 0; wider = s->sites[wider].wider) {
        const int span = s->sites[wider].span;
        int32_t *channels = s->kept + s->sites[wider].first;
        for (int j = 0; j < s->count[site]; j++)
            for (int i = 0; i < span; i++) channels[j * span + i] = kept[j] * span + i;
        s->count[wider] = s->count[site] * span;
    }
}

/* ---- for the convolutions ---- */

/* Point to n pixels from `first` on: to their first taps in x, and to their places in y. The last pixel is repeated if fewer are
 * left. */
INLINE void pixels_at(const Op *op, const State *s, int n, int first, const Element **x, Element **y) {
    const Element *x0 = s->arena + op->x.offset - (int64_t)op->pad_h * op->x.line - (int64_t)op->pad_w * op->x.stride;
    int last = op->y.height * op->y.width - 1;
    int row = first / op->y.width, column = first % op->y.width;
    for (int p = 0; p < n; p++) {
        x[p] = x0 + (int64_t)row * op->step * op->x.line + (int64_t)column * op->step * op->x.stride;
        y[p] = s->arena + op->y.offset + (int64_t)row * op->y.line + (int64_t)column * op->y.stride;
        if (first + p < last && ++column == op->y.width) column = 0, row++;
    }
}

/* Point to a channel of n pixels of the residual, from `first` on. */
INLINE void residuals_at(const Op *op, const State *s, int n, int first, int channel, const Element **residual) {
    int last = op->y.height * op->y.width - 1;
    int row = first / op->y.width, column = first % op->y.width;
    for (int p = 0; p < n; p++) {
        residual[p] = s->arena + op->residual.offset + (int64_t)row * op->residual.line +
                      (int64_t)column * op->residual.stride + channel;
        if (first + p < last && ++column == op->y.width) column = 0, row++;
    }
}

/* Prefetch one of `parts` equal parts of some weights. */
INLINE void fetch(const Weight *from, int64_t weights, int64_t part, int64_t parts) {
    const int64_t of_line = 64 / sizeof(Weight), lines = weights / of_line;
    for (int64_t line = lines * part / parts; line < lines * (part + 1) / parts; line++)
        __builtin_prefetch(from + line * of_line, 0, 2);
}

/* The part of a convolution that a member of a team computes, in items of one tile of pixels with one block of weights. Where
 * there is more memory in the pixels than in the weights, each member computes the same part of the picture in every layer: it then
 * reads what it wrote itself, which is in the cache of its own core. Elsewhere each member takes some blocks of weights, so that no
 * two members read the same weights. */
typedef struct {
    int64_t tiles, first_tile, last_tile, first_item, last_item;
} Part;

static Part part_of(const Op *op, int64_t tiles, int64_t blocks, int64_t weights, int member, int members) {
    int by_pixels = tiles >= 4 * members && weights <= (int64_t)op->x.height * op->x.width * op->x.stride;
    Part part = {.tiles = tiles, .last_tile = tiles};
    if (by_pixels) share(tiles, member, members, &part.first_tile, &part.last_tile);
    part.tiles = part.last_tile - part.first_tile;
    part.last_item = part.tiles * blocks;
    if (!by_pixels) share(tiles * blocks, member, members, &part.first_item, &part.last_item);
    return part;
}

/* ---- for the max-pool ---- */

/* The part of x inside the picture that a pixel of y is the maximum of. */
typedef struct {
    const Element *x;
    Element *y;
    int rows, columns;
} Window;

INLINE Window window_at(const Op *op, const State *s, int row, int column) {
    int top = row * op->step - op->pad_h, left = column * op->step - op->pad_w;
    int y0 = top < 0 ? 0 : top, y1 = top + op->kernel_h < op->x.height ? top + op->kernel_h : op->x.height;
    int x0 = left < 0 ? 0 : left, x1 = left + op->kernel_w < op->x.width ? left + op->kernel_w : op->x.width;
    return (Window){s->arena + op->x.offset + (int64_t)y0 * op->x.line + (int64_t)x0 * op->x.stride,
                    s->arena + op->y.offset + (int64_t)row * op->y.line + (int64_t)column * op->y.stride, y1 - y0, x1 - x0};
}

/* ---- the run of a program ---- */

static int runs(const Op *op, const State *s) {
    return op->branch_site < 0 || (s->count[op->branch_site] > 0) != op->unless;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Run the operations from `start` on, up to the next host operation or the end. Returns the index of the host operation, or n_ops.
 * seconds: NULL, or the time of each operation is added here. */
static int run(const Program *program, State *s, int start, int member, Team *team, double *seconds) {
    double since = seconds ? now() : 0;
    for (int i = start; i < program->n_ops; i++) {
        const Op *op = program->ops + i;
        if (!runs(op, s)) continue;
        if (op->kind == HOST) return i;
        if (op->kind == NOTHING) continue;
        execute(op, s, member, team);
        barrier(team);
        if (seconds && !member) {
            double then = now();
            seconds[i] += then - since;
            since = then;
        }
    }
    return program->n_ops;
}

static void take(const Program *program, const State *s, float *features, uint8_t *masks) {
    memcpy(features, s->arena + program->output, sizeof(float) * program->features);
    if (program->n_masks) memset(masks, 0, program->n_masks); /* without gates there are no masks to point to */
    for (int i = 0; i < program->n_sites; i++)
        for (int j = 0; j < s->count[i]; j++) masks[program->sites[i].first + s->kept[program->sites[i].first + j]] = 1;
}

/* ---- calls from outside ---- */

/* One image, which the whole team computes. */
typedef struct {
    const Program *program;
    State *state;
    const float *image;
    int start, stopped;
    double *seconds;
} One;

static void work_on_one(void *task, int member, Team *team) {
    One *one = task;
    if (one->image) {
        put_image(one->program, one->state, one->image, member, team->members);
        barrier(team);
    }
    int stopped = run(one->program, one->state, one->start, member, team, one->seconds);
    if (!member) one->stopped = stopped;
}

/* Several images, of which each member computes one at a time. */
typedef struct {
    const Program *program;
    State *states;
    const float *images;
    float *features;
    uint8_t *masks;
    int64_t n;
    int32_t *positions;
    atomic_long next;
} Many;

static void work_on_many(void *task, int member, Team *team) {
    (void)team;
    Many *many = task;
    const Program *program = many->program;
    Team alone = {.members = 1};
    int64_t size = (int64_t)program->input.channels * program->input.height * program->input.width;
    for (int64_t i; (i = atomic_fetch_add(&many->next, 1)) < many->n;) {
        State *s = many->states + (many->positions ? i : member);
        int start = many->positions ? many->positions[i] : 0;
        if (start > program->n_ops) continue;
        if (!start) put_image(program, s, many->images + i * size, 0, 1);
        int stopped = run(program, s, start, 0, &alone, NULL);
        if (stopped == program->n_ops) {
            take(program, s, many->features + i * program->features, many->masks + i * program->n_masks);
            stopped++;
        }
        if (many->positions) many->positions[i] = stopped;
    }
}

/* Run n images (3, H, W) of float32; each is run by one thread.
 * positions: NULL if the program has no host operation; there are as many states as threads then. Else there is a state for each
 * image, and positions holds the operation that each image starts from (0: the image is put in first; above n_ops: it is done).
 * After the call it holds the host operation that the image stopped before, or n_ops + 1 if its features and masks are written. */
void ssl_dc_run_many(const Program *program, State *states, const float *images, int64_t n, float *features, uint8_t *masks,
                     int32_t *positions, int threads) {
    Many many = {.program = program, .states = states, .images = images, .features = features, .masks = masks, .n = n,
                 .positions = positions};
    Job job = {.work = work_on_many, .task = &many, .team = {.members = members_of(threads)}};
    serve(&job);
}

/* Run one image with all threads together, from an operation on. image: NULL to go on with the image that was put in before.
 * Returns the index of the host operation that must be done next, or n_ops. seconds: NULL, or the time of each operation is added
 * here. */
int ssl_dc_run_one(const Program *program, State *state, const float *image, int start, int threads, double *seconds) {
    One one = {.program = program, .state = state, .image = image, .start = start, .seconds = seconds};
    Job job = {.work = work_on_one, .task = &one, .team = {.members = members_of(threads)}};
    serve(&job);
    return one.stopped;
}

void ssl_dc_take(const Program *program, const State *state, float *features, uint8_t *masks) {
    take(program, state, features, masks);
}

/* Means are made of this many partial sums, so that a gate decides the same with any number of threads. */
#define PARTS 8
/* Queries of attention that are computed at once, so that keys and values are read seldom. */
#define QUERIES 24

/* The sizes by which the host lays out weights and activations. */
int ssl_dc_vector(void) { return VECTOR; }
int ssl_dc_block(void) { return BLOCK; }
int ssl_dc_parts(void) { return PARTS; }
int ssl_dc_queries(void) { return QUERIES; }
int ssl_dc_max_threads(void) { return MAX_THREADS; }
int ssl_dc_size_of_op(void) { return sizeof(Op); }
int ssl_dc_size_of_program(void) { return sizeof(Program); }
int ssl_dc_size_of_state(void) { return sizeof(State); }

#endif
