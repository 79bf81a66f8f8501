/* Runs the case that tests/helpers/emulated_kernel.py writes to standard input, by the kernel in the file KERNEL.
 *
 * A case is a piece of memory in which every pointer is the distance from its start, 0 for NULL. The features and masks are written to
 * standard output: first those of all images side by side, then those of each image by itself, which all threads share.
 * With an argument the program writes whether it runs here, and the sizes by which weights and activations are laid out.
 */
#include KERNEL
#include PROCESSOR
#include <stdio.h>

typedef struct {
    int64_t size; /* bytes of the case */
    int64_t program, arena, images;
    int64_t arena_bytes, scratch_floats, kept_entries, counts, n, threads;
} Case;

static void *checked(void *p) {
    if (!p) exit(3);
    return p;
}

/* Make a distance from the start of the memory a pointer, of any type. */
static void move(char *memory, void *pointer) {
    intptr_t distance;
    memcpy(&distance, pointer, sizeof distance);
    char *moved = distance ? memory + distance : NULL;
    memcpy(pointer, &moved, sizeof moved);
}

static State new_state(const Program *program, const Case *c, const char *memory) {
    State s = {.sites = program->sites};
    s.arena = checked(aligned_alloc(64, (c->arena_bytes + 63) / 64 * 64));
    memcpy(s.arena, memory + c->arena, c->arena_bytes);
    s.scratch = checked(calloc(c->scratch_floats, sizeof(float)));
    s.kept = checked(calloc(c->kept_entries, sizeof(int32_t)));
    s.count = checked(calloc(c->counts, sizeof(int32_t)));
    return s;
}

static void put(const Program *program, int64_t n, const float *features, const uint8_t *masks) {
    if (fwrite(features, sizeof(float) * program->features, n, stdout) != (size_t)n) exit(4);
    if (program->n_masks && fwrite(masks, program->n_masks, n, stdout) != (size_t)n) exit(4);
}

int main(int count, char **arguments) {
    (void)arguments;
    if (count > 1) {
        int sizes[] = {ssl_dc_runs_here(), ssl_dc_vector(), ssl_dc_block(), ssl_dc_parts(), ssl_dc_queries(), ssl_dc_max_threads(),
                       ssl_dc_size_of_op(), ssl_dc_size_of_program(), ssl_dc_size_of_state()};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) printf("%d ", sizes[i]);
#ifdef DOT
        printf("%s", ssl_dc_dot());
#endif
        return 0;
    }
    Case c;
    if (fread(&c, sizeof c, 1, stdin) != 1) return 2;
    char *memory = checked(aligned_alloc(64, (c.size + 63) / 64 * 64));
    memcpy(memory, &c, sizeof c);
    if (fread(memory + sizeof c, c.size - sizeof c, 1, stdin) != 1) return 2;
    Program *program = (Program *)(memory + c.program);
    move(memory, &program->ops), move(memory, &program->sites);
    for (int i = 0; i < program->n_ops; i++) {
        Op *op = (Op *)program->ops + i;
        move(memory, &op->weight), move(memory, &op->bias), move(memory, &op->weight2), move(memory, &op->bias2);
        move(memory, &op->scale), move(memory, &op->residual_scale);
    }
    const float *images = (const float *)(memory + c.images);
    State *states = checked(calloc(c.threads, sizeof(State)));
    for (int64_t i = 0; i < c.threads; i++) states[i] = new_state(program, &c, memory);
    float *features = checked(calloc(c.n * program->features, sizeof(float)));
    uint8_t *masks = checked(calloc(c.n * program->n_masks + 1, 1));
    ssl_dc_run_many(program, states, images, c.n, features, masks, NULL, (int)c.threads);
    put(program, c.n, features, masks);
    for (int64_t i = 0; i < c.n; i++) {
        const float *image = images + i * program->input.channels * program->input.height * program->input.width;
        if (ssl_dc_run_one(program, states, image, 0, (int)c.threads, NULL) != program->n_ops) return 5;
        ssl_dc_take(program, states, features, masks);
        put(program, 1, features, masks);
    }
    return 0;
}
