/* Threads that work on a call together. Each kernel that includes this file has a pool of workers of its own. */
#ifndef SSL_DC_WORKERS_H
#define SSL_DC_WORKERS_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() ((void)0)
#endif

#define MAX_THREADS 64

/* Threads that share the work of one image; a team of one works alone. */
typedef struct {
    int members;
    atomic_int arrived, round;
} Team;

/* Work that every member of a team does its part of. */
typedef struct {
    void (*work)(void *task, int member, Team *team);
    void *task;
    Team team;
} Job;

static void barrier(Team *team) {
    if (team->members == 1) return;
    int round = atomic_load_explicit(&team->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == team->members - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->round, round + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&team->round, memory_order_acquire) == round; spins++) {
        if (spins < 4000) PAUSE();
        else sched_yield();
    }
}

/* The part [from, to) of n items that a member of a team does. */
static void share(int64_t n, int member, int members, int64_t *from, int64_t *to) {
    *from = n * member / members;
    *to = n * (member + 1) / members;
}

/* A pool of workers serves one job at a time. A thread that waits spins for about 50 microseconds before it sleeps: waking it
 * up would take as long, and the next job often comes within that time. */
#define SPINS 4000
static pthread_mutex_t serving = PTHREAD_MUTEX_INITIALIZER, lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t called = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static int workers;
static pthread_t threads_of[MAX_THREADS];
static int callers_processor = -1, workers_kept_off; /* see keep_off_the_callers_processor */
static atomic_int busy;
static atomic_long calls;
static Job *current;

static void *worker(void *argument) {
    int member = (int)(intptr_t)argument;
    pthread_mutex_lock(&lock);
    long seen = calls - 1; /* a worker is made for a job that has already begun */
    for (;;) {
        while (calls == seen) pthread_cond_wait(&called, &lock);
        seen = calls;
        Job *job = current;
        int asked = job && member < job->team.members; /* if not, the job must not be read after the lock is released */
        pthread_mutex_unlock(&lock);
        if (asked) {
            job->work(job->task, member, &job->team);
            if (atomic_fetch_sub(&busy, 1) == 1) {
                pthread_mutex_lock(&lock);
                pthread_cond_signal(&done);
                pthread_mutex_unlock(&lock);
            }
            for (int spins = 0; spins < SPINS && calls == seen; spins++) PAUSE();
        }
        pthread_mutex_lock(&lock);
    }
    return NULL;
}

/* Make the pool new in a forked child: the workers of its parent are not there. */
static void forget_workers(void) {
    workers = 0, workers_kept_off = 0, callers_processor = -1;
    busy = 0;
    current = NULL;
    pthread_mutex_init(&serving, NULL);
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&called, NULL);
    pthread_cond_init(&done, NULL);
}

__attribute__((constructor)) static void at_load(void) { pthread_atfork(NULL, NULL, forget_workers); }

/* Keep the workers off the processor that the caller runs on. On an idle machine the scheduler wakes them there. They would then
 * wait for the caller, and the caller for them, until the scheduler moves them some milliseconds later. */
static void keep_off_the_callers_processor(void) {
#ifdef __linux__
    cpu_set_t allowed;
    int here = sched_getcpu();
    if (here < 0 || (here == callers_processor && workers == workers_kept_off)) return;
    if (sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) < 2) return;
    CPU_CLR(here, &allowed);
    for (int i = 0; i < workers; i++) pthread_setaffinity_np(threads_of[i], sizeof allowed, &allowed);
    callers_processor = here, workers_kept_off = workers;
#endif
}

/* Do a job: the caller is member 0 of its team, and workers are the others. The team gets smaller if no thread can be made. */
static void serve(Job *job) {
    if (job->team.members == 1) {
        job->work(job->task, 0, &job->team);
        return;
    }
    pthread_mutex_lock(&serving);
    pthread_mutex_lock(&lock);
    current = job;
    calls++;
    busy = job->team.members - 1;
    while (workers < job->team.members - 1) {
        if (pthread_create(threads_of + workers, NULL, worker, (void *)(intptr_t)(workers + 1))) break;
        pthread_detach(threads_of[workers]);
        workers++;
    }
    keep_off_the_callers_processor();
    if (workers < job->team.members - 1) job->team.members = 1 + workers, busy = workers;
    pthread_cond_broadcast(&called);
    pthread_mutex_unlock(&lock);
    job->work(job->task, 0, &job->team);
    for (int spins = 0; spins < SPINS && busy; spins++) PAUSE();
    pthread_mutex_lock(&lock);
    while (busy) pthread_cond_wait(&done, &lock);
    current = NULL;
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&serving);
}

static int members_of(int threads) { return threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads; }

#endif
