/* θ ← (θ + s θ*) / (1 + s) with s = (rate Ω + base) / D, element by element, in one pass over the memory: it reads θ, θ*,
 * Ω and what D is made of, and writes θ. D is 1, v, or √(scale v − m²) + ε.
 *
 * All parameters of a model go in one call: they are cut into chunks, and threads take the next chunk until none is left.
 * Every element is computed alone, so the result does not depend on the number of threads.
 *
 * The middle of this file, the part between TEMPLATE and its #endif, is compiled once per kind of CPU by including the
 * file in itself; its loops are plain, for the compiler to turn into vector code. */

#ifndef TEMPLATE

#include "../../measure/kernels/parts/threads.h"

#include <float.h>
#include <math.h>

#if defined(__GNUC__)
#define restrict __restrict__
#else
#define restrict
#endif

enum { CHUNK = 1 << 14, FEW = 1 << 15, BLOCK = 1 << 10 };
enum { ONE, PLAIN, ROOT, CENTERED }; /* what D is: 1, v, √(scale v) + ε, √(scale v − m²) + ε */
enum { FLOATS, HALVES, CODES };     /* how θ* and Ω are kept: floats, their upper halves (bfloat16), bytes for `levels` */

#define LARGEST 1e30f /* of rate Ω + base: it holds a weight to the last bit, and sums with D stay finite */

/* One tensor, dense in memory; all of its operands have its strides. */
typedef struct {
    float *weights;
    const void *target, *importance;
    const float *levels, *second, *mean;
    size count, first; /* elements; chunks before this tensor's */
    float rate, base, scale, epsilon;
    int target_kind, importance_kind, divisor;
} Tensor;

typedef void (*Pull)(const Tensor *, size from, size to);

#define TEMPLATE
#if defined(__GNUC__) && defined(__x86_64__)
#define NAME(word) word##_avx512
#define TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,prefer-vector-width=512")))
#include "pull.c"
#define NAME(word) word##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#include "pull.c"
#endif
#define NAME(word) word##_any
#define TARGET
#include "pull.c"

static Pull this_cpu(void) {
#if defined(__GNUC__) && defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw"))
        return pull_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return pull_avx2;
#endif
    return pull_any;
}

/* What the threads of one call share. */
typedef struct {
    const Tensor *tensors;
    size length, chunks, next_chunk, workers, next_worker;
    Pull pull;
} Job;

static void work(void *argument) {
    Job *job = argument;
    if (FETCH_ADD(&job->next_worker) >= job->workers) return;
    /* From the last to the first: what the optimizer has just written is still in the caches. */
    const Tensor *t = job->tensors + job->length - 1;
    for (size taken; (taken = FETCH_ADD(&job->next_chunk)) < job->chunks;) {
        size c = job->chunks - 1 - taken;
        while (c < t->first) t--;
        size from = (c - t->first) * CHUNK;
        job->pull(t, from, from + CHUNK < t->count ? from + CHUNK : t->count);
    }
}

static void pull_all(const Tensor *tensors, size length, size chunks, size elements, size threads) {
    size workers = elements <= FEW || threads < 1 ? 1 : threads;
    if (workers > chunks) workers = chunks;
    if (workers > MOST_THREADS) workers = MOST_THREADS;
    Job job = {.tensors = tensors, .length = length, .chunks = chunks, .workers = workers, .pull = this_cpu()};
    if (chunks > 0) in_threads(work, &job, job.workers);
}

static PyObject *py_pull(PyObject *module, PyObject *arguments) {
    PyObject *list;
    size threads, chunks = 0, elements = 0;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "On", &list, &threads)) return NULL;
    size length = PyList_Size(list);
    if (length < 0) return NULL;
    Tensor *tensors = malloc((size_t)(length + 1) * sizeof(Tensor));
    if (!tensors) return PyErr_NoMemory();
    for (size i = 0; i < length; i++) {
        Tensor *t = tensors + i;
        unsigned long long weights, target, importance, levels, second, mean;
        if (!PyArg_ParseTuple(PyList_GetItem(list, i), "KKiKiKKKinffff", &weights, &target, &t->target_kind, &importance,
                              &t->importance_kind, &levels, &second, &mean, &t->divisor, &t->count, &t->rate, &t->base,
                              &t->scale, &t->epsilon)) {
            free(tensors);
            return NULL;
        }
        t->weights = (float *)(uintptr_t)weights;
        t->target = (const void *)(uintptr_t)target;
        t->importance = (const void *)(uintptr_t)importance;
        t->levels = (const float *)(uintptr_t)levels;
        t->second = (const float *)(uintptr_t)second;
        t->mean = (const float *)(uintptr_t)mean;
        t->first = chunks;
        chunks += (t->count + CHUNK - 1) / CHUNK;
        elements += t->count;
    }
    Py_BEGIN_ALLOW_THREADS
    pull_all(tensors, length, chunks, elements, threads);
    Py_END_ALLOW_THREADS
    free(tensors);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"pull", py_pull, METH_VARARGS,
     "pull([(weights, target, kind, importance, kind, levels, second, mean, divisor, count, rate, base, scale, epsilon), …],\n"
     "     threads) with addresses of dense tensors, unchecked."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_pull", .m_size = 0, .m_methods = methods};
PyMODINIT_FUNC PyInit__pull(void) { return PyModuleDef_Init(&module); }

#else /* TEMPLATE: compiled with NAME and TARGET for one kind of CPU. */

/* Elements from `from` on as floats: where they are, or read into `room`. */
TARGET static const float *NAME(floats)(const void *values, int kind, const float *levels, size from, size count, float *room) {
    if (kind == FLOATS) return (const float *)values + from;
    if (kind == HALVES) {
        const uint16_t *half = (const uint16_t *)values + from;
        for (size i = 0; i < count; i++) {
            uint32_t bits = (uint32_t)half[i] << 16;
            memcpy(room + i, &bits, sizeof bits);
        }
    } else {
        const uint8_t *code = (const uint8_t *)values + from;
        for (size i = 0; i < count; i++) room[i] = levels[code[i]];
    }
    return room;
}

/* `divisor` is a constant wherever this is inlined. */
TARGET static ALWAYS_INLINE void NAME(some)(const Tensor *t, size from, size count, const float *restrict target,
                                            const float *restrict omega, const int divisor) {
    float *restrict weights = t->weights + from;
    const float *restrict second = t->second + from, *restrict mean = t->mean + from;
    const float rate = t->rate, base = t->base, scale = t->scale, epsilon = t->epsilon;
    for (size i = 0; i < count; i++) {
        float d = 1;
        if (divisor == PLAIN) d = second[i];
        if (divisor == ROOT || divisor == CENTERED) {
            float square = second[i] * scale;
            if (divisor == CENTERED) square -= mean[i] * mean[i];
            square = square > 0 ? square : 0;
            d = sqrtf(square) + epsilon;
        }
        d = d > FLT_MIN ? d : FLT_MIN; /* where Ω and D are 0 the weight is free */
        float pull = rate * omega[i] + base;
        pull = pull < LARGEST ? pull : LARGEST;
        float share = pull / (pull + d), was = weights[i], way = target[i] - was;
        float near = was + way * share, far = target[i] - way * (1 - share); /* each exact at its end */
        weights[i] = share < 0.5f ? near : far;
    }
}

TARGET static void NAME(pull)(const Tensor *t, size from, size to) {
    float rooms[2][BLOCK]; /* they stay in the first cache */
    for (size count; from < to; from += count) {
        count = to - from < BLOCK ? to - from : BLOCK;
        const float *target = NAME(floats)(t->target, t->target_kind, t->levels, from, count, rooms[0]);
        const float *omega = NAME(floats)(t->importance, t->importance_kind, t->levels, from, count, rooms[1]);
        switch (t->divisor) {
        case ONE: NAME(some)(t, from, count, target, omega, ONE); break;
        case PLAIN: NAME(some)(t, from, count, target, omega, PLAIN); break;
        case ROOT: NAME(some)(t, from, count, target, omega, ROOT); break;
        case CENTERED: NAME(some)(t, from, count, target, omega, CENTERED); break;
        }
    }
}

#undef NAME
#undef TARGET

#endif
