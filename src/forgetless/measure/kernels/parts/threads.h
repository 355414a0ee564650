/* What every C file here needs: Python's stable interface, and a job done by several threads at once. */

#ifndef FORGETLESS_THREADS_H
#define FORGETLESS_THREADS_H

#define _GNU_SOURCE /* RTLD_DEFAULT */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#define SERIAL
#define FETCH_ADD(counter) ((*(counter))++)
#else
#include <dlfcn.h>
#include <pthread.h>
#define FETCH_ADD(counter) __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED)
#endif

#if defined(__GNUC__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE inline
#endif

typedef Py_ssize_t size;

enum { MOST_THREADS = 256 };

typedef void (*Work)(void *job);

#ifndef SERIAL
typedef struct {
    Work work;
    void *job;
} Duty;

static void *do_duty(void *argument) {
    Duty *duty = argument;
    duty->work(duty->job);
    return NULL;
}
#endif

/* Runs work(job) in `workers` threads, MOST_THREADS or fewer, and waits for all: in those of torch's own OpenMP where
 * it is in reach, for a second set of threads would compete with the first one, which spins for a while when it has
 * nothing to do. Fewer or more threads may come than were asked for: the job counts them. */
static void in_threads(Work work, void *job, size workers) {
#ifndef SERIAL
    void (*parallel)(Work, void *, unsigned, unsigned);
    *(void **)&parallel = dlsym(RTLD_DEFAULT, "GOMP_parallel");
    if (parallel && workers > 1) {
        parallel(work, job, (unsigned)workers, 0);
        return;
    }
    Duty duty = {work, job};
    pthread_t thread[MOST_THREADS];
    size started = 0;
    while (started + 1 < workers && pthread_create(&thread[started], NULL, do_duty, &duty) == 0) started++;
    work(job);
    while (started > 0) pthread_join(thread[--started], NULL);
#else
    (void)workers;
    work(job);
#endif
}

#endif
