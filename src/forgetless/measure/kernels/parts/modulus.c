/* out[o,i] += Σ_n |Σ_t d[n,t,o] · a[n,t,i]|^p,  p = 1 or 2: the sum over samples n of a weight's per-sample gradients,
 * each taken to its modulus (or square) before it is added, at about the cost of the product Dᵀ A alone.
 *
 * The product is computed as matrix libraries do (Goto and van de Geijn, "Anatomy of high-performance matrix
 * multiplication", 2008): both operands are packed into panels, and a tile of the result stays in registers while t runs.
 * Only the end differs: when a sample is complete, the modulus of the tile is added to `out` straight from registers.
 * A convolution is the same sum over im2col(x), whose elements are looked up while packing and never stored.
 *
 * The middle of this file, the part between TEMPLATE and its #endif, is compiled once per kind of CPU by including the
 * file in itself. Every element of `out` is summed in the same order whatever the number of threads. */

#ifndef TEMPLATE

#include "threads.h"

#include <math.h>

#if defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 16")
#else
#define UNROLL
#endif

/* Element (n, t, j) of group g is data[g·group + n·sample + row[t] + column[j]]. */
typedef struct {
    const float *data;
    size group, sample;
    const int64_t *row, *column;
} Operand;

typedef struct {
    Operand d, a;
    float *out; /* [groups, outputs, inputs], contiguous */
    size groups, samples, positions, outputs, inputs;
    int power;
} Problem;

/* The part of `out` that one thread works on at a time: rows o0 ≤ o < o1, columns i0 ≤ i < i1 of one group. */
typedef struct {
    size group, o0, o1, i0, i1;
} Block;

/* How the sums over n and t are cut: `bundle` whole samples at a time or, where one sample alone is longer than DEPTH,
 * `length` of its positions. */
typedef struct {
    size bundle, length, depth;
} Cut;

enum { DEPTH = 256, BLOCK_ROWS = 384, BLOCK_COLUMNS = 768, STRIP = 16, LINE = 64 };

static size smaller(size x, size y) { return x < y ? x : y; }
static size larger(size x, size y) { return x > y ? x : y; }
static size quotient(size x, size y) { return (x + y - 1) / y; } /* rounded up */

static Cut cut(const Problem *p) {
    Cut c;
    c.bundle = smaller(larger(DEPTH / p->positions, 1), p->samples);
    c.length = quotient(p->positions, quotient(p->positions, DEPTH + DEPTH / 2));
    c.depth = c.bundle * c.length;
    return c;
}

/* One kind of CPU: its tile, how much scratch a block needs (in floats), and the function that does a block. */
typedef struct {
    int rows, columns;
    void (*block)(const Problem *, Block, float *scratch);
} Cpu;

#define TEMPLATE
#if defined(__GNUC__)
#if defined(__x86_64__)
#define NAME(word) word##_avx512
#define TARGET __attribute__((target("avx512f")))
#define LANES 16
#define ROWS 12
#define VECTORS 2
#include "modulus.c"
#define NAME(word) word##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define ROWS 6
#define VECTORS 2
#include "modulus.c"
#endif
#define NAME(word) word##_any
#define TARGET
#define LANES 4
#define ROWS 6
#if defined(__aarch64__)
#define VECTORS 4
#else
#define VECTORS 2
#endif
#include "modulus.c"
#else
#define NAME(word) word##_any
#define TARGET
#define LANES 1
#define ROWS 4
#define VECTORS 4
#include "modulus.c"
#endif

static Cpu this_cpu(void) {
#if defined(__GNUC__) && defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return cpu_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return cpu_avx2;
#endif
    return cpu_any;
}

/* What the threads of one call share: blocks and scratch are handed out by counting up. */
typedef struct {
    const Problem *problem;
    Cpu cpu;
    size rows, columns; /* of a block */
    size blocks, next_block;
    size workers, next_worker;
    float *scratch;
    size scratch_each;
} Job;

static void work(void *argument) {
    Job *job = argument;
    const Problem *p = job->problem;
    size worker = FETCH_ADD(&job->next_worker);
    if (worker >= job->workers) return;
    size across = quotient(p->inputs, job->columns), down = quotient(p->outputs, job->rows);
    for (size b; (b = FETCH_ADD(&job->next_block)) < job->blocks;) {
        size o0 = b / across % down * job->rows, i0 = b % across * job->columns;
        Block block = {b / across / down, o0, smaller(o0 + job->rows, p->outputs), i0, smaller(i0 + job->columns, p->inputs)};
        job->cpu.block(p, block, job->scratch + worker * job->scratch_each);
    }
}

/* Blocks of at most BLOCK_ROWS × BLOCK_COLUMNS, equal in size, whole tiles, and enough of them for the threads. */
static void divide(Job *job, size threads) {
    const Problem *p = job->problem;
    size down = quotient(p->outputs, BLOCK_ROWS), across = quotient(p->inputs, BLOCK_COLUMNS);
    for (;;) {
        job->rows = quotient(quotient(p->outputs, down), job->cpu.rows) * job->cpu.rows;
        job->columns = quotient(quotient(p->inputs, across), job->cpu.columns) * job->cpu.columns;
        job->blocks = p->groups * quotient(p->outputs, job->rows) * quotient(p->inputs, job->columns);
        int even = job->blocks % threads == 0 || job->blocks >= 4 * threads;
        int tall = job->rows > job->cpu.rows, wide = job->columns > job->cpu.columns;
        if (even || !(tall || wide)) break;
        if (wide && (job->columns >= job->rows || !tall)) across++;
        else down++;
    }
    job->workers = smaller(smaller(threads, job->blocks), MOST_THREADS);
}

/* Returns 0, or -1 if there is not enough memory, in which case `out` is untouched. */
static int accumulate(const Problem *p, size threads) {
    if (!p->groups || !p->samples || !p->positions || !p->outputs || !p->inputs) return 0;
    Job job = {.problem = p, .cpu = this_cpu()};
    divide(&job, larger(threads, 1));
    Cut c = cut(p);
    job.scratch_each = c.depth * (job.rows + job.columns) + (c.length < p->positions ? job.rows * job.columns : 0);
    job.scratch_each = quotient(job.scratch_each, LINE) * LINE;
    void *memory = malloc((size_t)(job.workers * job.scratch_each) * sizeof(float) + LINE);
    if (!memory) return -1;
    job.scratch = (float *)(((uintptr_t)memory + LINE - 1) / LINE * LINE);
    in_threads(work, &job, job.workers);
    free(memory);
    return 0;
}

static PyObject *py_accumulate(PyObject *module, PyObject *arguments) {
    Problem p;
    unsigned long long d, d_row, d_column, a, a_row, a_column, out;
    size threads;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "(KnnKK)(KnnKK)Knnnnnin", &d, &p.d.group, &p.d.sample, &d_row, &d_column, &a,
                          &p.a.group, &p.a.sample, &a_row, &a_column, &out, &p.groups, &p.samples, &p.positions,
                          &p.outputs, &p.inputs, &p.power, &threads))
        return NULL;
    p.d.data = (const float *)(uintptr_t)d;
    p.d.row = (const int64_t *)(uintptr_t)d_row;
    p.d.column = (const int64_t *)(uintptr_t)d_column;
    p.a.data = (const float *)(uintptr_t)a;
    p.a.row = (const int64_t *)(uintptr_t)a_row;
    p.a.column = (const int64_t *)(uintptr_t)a_column;
    p.out = (float *)(uintptr_t)out;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = accumulate(&p, threads);
    Py_END_ALLOW_THREADS
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"accumulate", py_accumulate, METH_VARARGS,
     "accumulate(d, a, out, groups, samples, positions, outputs, inputs, power, threads), where d and a are\n"
     "(data, group, sample, row, column): addresses and strides, unchecked."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_modulus", .m_size = 0, .m_methods = methods};
PyMODINIT_FUNC PyInit__modulus(void) { return PyModuleDef_Init(&module); }

#else /* TEMPLATE: compiled with NAME, TARGET, LANES, ROWS and VECTORS for one kind of CPU. */

#define COLUMNS (LANES * VECTORS)

#if LANES > 1
typedef float NAME(vector) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t NAME(bits) __attribute__((vector_size(4 * LANES)));
#define MODULUS(x) ((NAME(vector))((NAME(bits))(x) & 0x7fffffff))
#else
typedef float NAME(vector);
#define MODULUS(x) fabsf(x)
#endif

typedef NAME(vector) NAME(sums)[ROWS][VECTORS];

/* sum[r][i] += d[r] · a[i], or = where it is the first. */
TARGET static ALWAYS_INLINE void NAME(add)(NAME(sums) sum, const float *d, const float *a, const int first) {
    NAME(vector) row[VECTORS];
    UNROLL for (int v = 0; v < VECTORS; v++) row[v] = *(const NAME(vector) *)(a + v * LANES);
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] = first ? row[v] * d[r] : sum[r][v] + row[v] * d[r];
}

/* One tile over `samples` samples of `length` positions each: d is [depth][ROWS], a is [depth][COLUMNS].
 * Unless `begin`, the sums go on from `partial`; unless `end`, they are left there for later. */
TARGET static void NAME(tile)(const float *restrict d, const float *restrict a, size samples, size length,
                              float *restrict out, size stride, int power, float *restrict partial, int begin, int end) {
    typedef NAME(vector) vector;
    for (size n = 0; n < samples; n++) {
        NAME(sums) sum;
        if (!begin)
            UNROLL for (int r = 0; r < ROWS; r++)
                UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] = *(vector *)(partial + r * COLUMNS + v * LANES);
        if (begin) NAME(add)(sum, d, a, 1);
        else NAME(add)(sum, d, a, 0);
        d += ROWS, a += COLUMNS;
        for (size t = 1; t < length; t++, d += ROWS, a += COLUMNS) NAME(add)(sum, d, a, 0);
        UNROLL for (int r = 0; r < ROWS; r++)
            UNROLL for (int v = 0; v < VECTORS; v++) {
                vector *total = (vector *)(out + r * stride + v * LANES), s = sum[r][v];
                if (!end) *(vector *)(partial + r * COLUMNS + v * LANES) = s;
                else if (power == 1) *total += MODULUS(s);
                else *total += s * s;
            }
    }
}

/* Columns j0 ≤ j < j1 of `depth` positions, from position t0 of sample n0 on and `length` of each sample, as panels of
 * [depth][width], filled up with zeros. A few positions at a time, so that the memory is read along its rows. */
TARGET static inline void NAME(pack)(const Operand *x, size group, size n0, size t0, size length, size depth, size j0,
                                     size j1, float *restrict panels, const int width) {
    for (size k = 0; k < depth; k += STRIP) {
        const float *from[STRIP];
        int strip = (int)smaller(STRIP, depth - k);
        for (int s = 0; s < strip; s++)
            from[s] = x->data + group * x->group + (n0 + (k + s) / length) * x->sample + x->row[t0 + (k + s) % length];
        float *to = panels + k * width;
        for (size j = j0; j < j1; j += width, to += depth * width) {
            const int64_t *column = x->column + j;
            int there = (int)smaller(width, j1 - j), run = there == width;
            for (int c = 1; run && c < width; c++) run = column[c] == column[0] + c;
            for (int s = 0; s < strip; s++)
                if (run) memcpy(to + s * width, from[s] + column[0], width * sizeof(float));
                else
                    for (int c = 0; c < width; c++) to[s * width + c] = c < there ? from[s][column[c]] : 0;
        }
    }
}

/* A tile at the edge of `out`: the part that is there goes through a whole tile of its own. */
TARGET static void NAME(edge)(const float *d, const float *a, size samples, size length, float *out, size stride,
                              size rows, size columns, int power, float *partial, int begin, int end) {
    float whole[ROWS * COLUMNS] = {0};
    for (size r = 0; end && r < rows; r++) memcpy(whole + r * COLUMNS, out + r * stride, columns * sizeof(float));
    NAME(tile)(d, a, samples, length, whole, COLUMNS, power, partial, begin, end);
    for (size r = 0; end && r < rows; r++) memcpy(out + r * stride, whole + r * COLUMNS, columns * sizeof(float));
}

TARGET static void NAME(block)(const Problem *p, Block b, float *scratch) {
    const Cut c = cut(p);
    size down = quotient(b.o1 - b.o0, ROWS), across = quotient(b.i1 - b.i0, COLUMNS);
    float *d = scratch, *a = d + down * ROWS * c.depth, *partials = a + across * COLUMNS * c.depth;
    for (size n = 0; n < p->samples; n += c.bundle)
        for (size t = 0; t < p->positions; t += c.length) {
            size samples = smaller(c.bundle, p->samples - n), length = smaller(c.length, p->positions - t);
            size depth = samples * length;
            int begin = t == 0, end = t + length == p->positions;
            NAME(pack)(&p->d, b.group, n, t, length, depth, b.o0, b.o1, d, ROWS);
            NAME(pack)(&p->a, b.group, n, t, length, depth, b.i0, b.i1, a, COLUMNS);
            float *partial = partials;
            for (size i = 0; i < across; i++)
                for (size o = 0; o < down; o++, partial += ROWS * COLUMNS) {
                    size row = b.o0 + o * ROWS, rows = smaller(ROWS, b.o1 - row);
                    size column = b.i0 + i * COLUMNS, columns = smaller(COLUMNS, b.i1 - column);
                    float *out = p->out + (b.group * p->outputs + row) * p->inputs + column;
                    const float *dp = d + o * ROWS * depth, *ap = a + i * COLUMNS * depth;
                    if (rows == ROWS && columns == COLUMNS)
                        NAME(tile)(dp, ap, samples, length, out, p->inputs, p->power, partial, begin, end);
                    else
                        NAME(edge)(dp, ap, samples, length, out, p->inputs, rows, columns, p->power, partial, begin, end);
                }
        }
}

static const Cpu NAME(cpu) = {ROWS, COLUMNS, NAME(block)};

#undef COLUMNS
#undef MODULUS
#undef NAME
#undef TARGET
#undef LANES
#undef ROWS
#undef VECTORS

#endif
