/* What a decoder computes on a CPU, over float32 activations: linear maps, norms, rotations, gates, paged attention.

   Written with the vectors of gcc and clang, so that one text serves AVX2, AVX-512 and NEON; intrinsics stand only where
   no operator says it. Compiled by build.py with -O3 -march=native, called from library_unsafe.py.

   Invariants. Every function may be called from any thread, one at a time (`entered`). Sums are made in float32, in an
   order that does not depend on the number of threads. Nothing is allocated but threads and the rows of `quantised`. */

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__)
#define LANES 16
#define ROWS 12                       /* rows of a block: ROWS × 2 sums, two weights and one input are in registers */
#else
#define LANES 8
#define ROWS 6
#endif
#define PANEL (2 * LANES)             /* outputs that are computed together */
#define WAYS 4                        /* independent sums of one output: hides the latency of an addition */
#define DEPTH_CHUNK 512               /* of many rows: inputs and weights of a chunk stay in the first-level cache */
#define ROW_CHUNK 48                  /* rows that share a chunk while it is in the second-level cache */
#define MOST_QUERIES 64               /* of a block of attention: tokens × queries of a KV head */
#define MOST_HEAD_DIM 256
#define TILE 32                       /* tokens that are read at once */

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define EACH(variable, end) for (int64_t variable = 0; variable < (end); variable++)

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static const floats ZERO = {0};

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

INLINE float widened(uint16_t value) {
    union { uint32_t bits; float number; } both = {(uint32_t)value << 16};
    return both.number;
}

/* To the nearest, ties to even, as torch does. */
INLINE uint16_t narrowed(float value) {
    union { float number; uint32_t bits; } both = {value};
    if (value != value) return 0x7fc0;
    return (uint16_t)((both.bits + 0x7fff + ((both.bits >> 16) & 1)) >> 16);
}

/* ---- Threads. Work is a number of items; whoever is awake takes the next one, and who calls always takes part. So a
   thread that has been displaced from its core delays only the item it holds. A job is open, or closed and left by all;
   its fields change only then. */

#define MOST_THREADS 256
#define SPINS 4000                    /* pauses until an idle thread sleeps: some 50 µs, more than Python needs between calls */

typedef void (*Work)(const void *task, int64_t item);
static struct { Work work; const void *task; int64_t items; } job;
static atomic_int job_open, inside, asleep;
static atomic_llong next_item;
static pthread_mutex_t entered = PTHREAD_MUTEX_INITIALIZER, sleeping = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken = PTHREAD_COND_INITIALIZER;
static int threads_started = 1, threads_wanted = 1;

static inline void pause_briefly(void) {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_items(void) {
    for (int64_t item; (item = atomic_fetch_add(&next_item, 1)) < job.items;) job.work(job.task, item);
}

static void *idle(void *number) {
    for (;;) {
        for (int spin = 0; !atomic_load(&job_open) && spin < SPINS; spin++) pause_briefly();
        if (!atomic_load(&job_open) || (int64_t)number >= threads_wanted) {
            pthread_mutex_lock(&sleeping);
            atomic_fetch_add(&asleep, 1);
            while (!atomic_load(&job_open)) pthread_cond_wait(&woken, &sleeping);
            atomic_fetch_sub(&asleep, 1);
            pthread_mutex_unlock(&sleeping);
        }
        atomic_fetch_add(&inside, 1);
        if (atomic_load(&job_open) && (int64_t)number < threads_wanted) take_items();
        atomic_fetch_sub(&inside, 1);
    }
    return NULL;
}

static void parallel(Work work, const void *task, int64_t items) {
    if (threads_started == 1 || threads_wanted == 1 || items == 1) {
        EACH(item, items) work(task, item);
        return;
    }
    job.work = work, job.task = task, job.items = items;
    atomic_store(&next_item, 0);
    atomic_store(&job_open, 1);
    if (atomic_load(&asleep)) {
        pthread_mutex_lock(&sleeping);
        pthread_cond_broadcast(&woken);
        pthread_mutex_unlock(&sleeping);
    }
    take_items();
    atomic_store(&job_open, 0);
    for (int spin = 0; atomic_load(&inside); spin++)
        if (spin < SPINS) pause_briefly(); else sched_yield();
}

/* How many threads compute, the caller's among them; for the whole OS process. */
void use_threads(int count) {
    pthread_mutex_lock(&entered);
    threads_wanted = count < MOST_THREADS ? count : MOST_THREADS;
    for (pthread_t thread; threads_started < threads_wanted; threads_started++) {
        if (pthread_create(&thread, NULL, idle, (void *)(int64_t)threads_started)) break;
        pthread_detach(thread);
    }
    pthread_mutex_unlock(&entered);
}

static void run(Work work, const void *task, int64_t items) {
    pthread_mutex_lock(&entered);
    parallel(work, task, items);
    pthread_mutex_unlock(&entered);
}

/* ---- Linear maps, y = x · wᵀ + bias. Weights lie in panels of PANEL outputs, input after input; outputs past the last are
   zero. Of bfloat16, a word holds output i in its low half and output i + LANES in its high half, so that one load is
   two weights for each lane, and widening is a shift and a mask.

       panel p:   input 0: (p0 | pL) (p1 | pL+1) …    input 1: …      */

enum { BFLOAT16, FLOAT32 };

INLINE void fetch(const int kind, const void *panel, int64_t step, int64_t input, floats *low, floats *high) {
    if (kind == BFLOAT16) {
        words both = *(const words *)((const uint16_t *)panel + input * step);
        *low = (floats)(both << 16);
        *high = (floats)(both & 0xffff0000u);
    } else {
        *low = *(const floats *)((const float *)panel + input * step);
        *high = *(const floats *)((const float *)panel + input * step + LANES);
    }
}

/* Of few rows the weights come from memory, and are asked for `ahead` bytes before they are needed: a little further in
   the panel, or, while a panel is read for the last time, in the next one, which lies behind it. */
#define AHEAD_BYTES 2048
INLINE void ask(const void *panel, int64_t bytes, int64_t count) {
    UNROLL for (int64_t line = 0; line < count; line += 64) __builtin_prefetch((const char *)panel + bytes + line);
}

/* out[row][half] += Σ x[row][input] · panel[input][half]. `rows` and `ways` are constants where it is called. */
INLINE void product(const int rows, const int ways, const int kind, const float *x, int64_t pitch, const void *panel,
                    int64_t step, int64_t depth, int64_t ahead, floats (*out)[2]) {
    floats sums[WAYS][ROWS][2], low, high;
    UNROLL for (int way = 0; way < ways; way++)
        UNROLL for (int row = 0; row < rows; row++)
            UNROLL for (int half = 0; half < 2; half++) sums[way][row][half] = way ? ZERO : out[row][half];
    int64_t input = 0;
    for (; input + ways <= depth; input += ways) {
        if (kind == BFLOAT16 && ahead) ask(panel, input * step * 2 + ahead, ways * PANEL * 2);
        UNROLL for (int way = 0; way < ways; way++) {
            fetch(kind, panel, step, input + way, &low, &high);
            UNROLL for (int row = 0; row < rows; row++) {
                sums[way][row][0] += x[row * pitch + input + way] * low;
                sums[way][row][1] += x[row * pitch + input + way] * high;
            }
        }
    }
    for (; input < depth; input++) {
        fetch(kind, panel, step, input, &low, &high);
        UNROLL for (int row = 0; row < rows; row++) {
            sums[0][row][0] += x[row * pitch + input] * low;
            sums[0][row][1] += x[row * pitch + input] * high;
        }
    }
    UNROLL for (int row = 0; row < rows; row++)
        UNROLL for (int half = 0; half < 2; half++) {
            UNROLL for (int way = 1; way < ways; way++) sums[0][row][half] += sums[way][row][half];
            out[row][half] = sums[0][row][half];
        }
}

/* The same with y in memory. y has `columns` outputs; those past them are not written. */
INLINE void product_at(const int rows, const int ways, const int kind, const float *x, int64_t pitch, const void *panel,
                       int64_t step, int64_t depth, int64_t ahead, float *y, int64_t y_pitch, int64_t columns,
                       const float *start) {
    floats out[ROWS][2];
    UNROLL for (int row = 0; row < rows; row++) {
        const float *from = start ? start : y + row * y_pitch;
        if (start || columns == PANEL) {
            out[row][0] = *(const floats *)from;
            out[row][1] = *(const floats *)(from + LANES);
        } else {
            out[row][0] = out[row][1] = ZERO;
            memcpy(out[row], from, columns * sizeof(float));
        }
    }
    product(rows, ways, kind, x, pitch, panel, step, depth, ahead, out);
    UNROLL for (int row = 0; row < rows; row++) {
        if (columns == PANEL) {
            *(floats *)(y + row * y_pitch) = out[row][0];
            *(floats *)(y + row * y_pitch + LANES) = out[row][1];
        } else {
            memcpy(y + row * y_pitch, out[row], columns * sizeof(float));
        }
    }
}

#define ROW_CASE(rows, ways) \
    case rows: product_at(rows, ways, kind, x, pitch, panel, step, depth, ahead, y, y_pitch, columns, start); break;

INLINE void product_rows(const int kind, int64_t rows, const float *x, int64_t pitch, const void *panel, int64_t step,
                         int64_t depth, int64_t ahead, float *y, int64_t y_pitch, int64_t columns, const float *start) {
    switch (rows) {
        ROW_CASE(1, 4) ROW_CASE(2, 2) ROW_CASE(3, 2) ROW_CASE(4, 1) ROW_CASE(5, 1) ROW_CASE(6, 1)
#if ROWS > 6
        ROW_CASE(7, 1) ROW_CASE(8, 1) ROW_CASE(9, 1) ROW_CASE(10, 1) ROW_CASE(11, 1) ROW_CASE(12, 1)
#endif
    }
}

/* Rows are cut into blocks of almost the same size, none above ROWS. */
static void products(const int kind, int64_t rows, const float *x, int64_t pitch, const void *panel, int64_t step,
                     int64_t depth, float *y, int64_t y_pitch, int64_t columns, const float *start) {
    int64_t blocks = parts(rows, ROWS), few = rows <= 2 * ROWS;
    for (int64_t left = blocks; left; left--) {
        int64_t some = parts(rows, left), ahead = !few ? 0 : blocks == 1 ? AHEAD_BYTES : left == 1 ? depth * step * 2 : 0;
        if (kind == BFLOAT16) product_rows(BFLOAT16, some, x, pitch, panel, step, depth, ahead, y, y_pitch, columns, start);
        else product_rows(FLOAT32, some, x, pitch, panel, step, depth, 0, y, y_pitch, columns, start);
        x += some * pitch, y += some * y_pitch, rows -= some;
    }
}

typedef struct {
    int64_t rows, depth, outputs;
    const void *panels;
    const float *bias, *scales;               /* scales: of outputs, for int8 */
    const float *x;
    float *y;
    int64_t group;                            /* panels of an item */
    const int16_t *quantised;
    const float *row_scales;
} Map;

static const float NO_BIAS[PANEL];

static void linear_item(const void *task, int64_t item) {
    const Map *m = task;
    int64_t panels = parts(m->outputs, PANEL), groups = parts(panels, m->group);
    int64_t first_row = item / groups * ROW_CHUNK, first = item % groups * m->group;
    int64_t rows = least(ROW_CHUNK, m->rows - first_row), chunk = m->rows > 2 * ROWS ? DEPTH_CHUNK : m->depth;
    for (int64_t input = 0; input < m->depth; input += chunk)
        for (int64_t panel = first; panel < least(first + m->group, panels); panel++) {
            const float *start = m->bias ? m->bias + panel * PANEL : NO_BIAS;
            products(BFLOAT16, rows, m->x + first_row * m->depth + input, m->depth,
                     (const uint16_t *)m->panels + (panel * m->depth + input) * PANEL, PANEL,
                     least(chunk, m->depth - input), m->y + first_row * m->outputs + panel * PANEL, m->outputs,
                     least(PANEL, m->outputs - panel * PANEL), input ? NULL : start);
        }
}

static int64_t group_of(int64_t rows, int64_t panel_bytes) {
    return rows > ROW_CHUNK ? 8 : most(1, 65536 / panel_bytes);
}

void linear_bfloat16(int64_t rows, int64_t depth, int64_t outputs, const float *x, const void *panels, const float *bias,
                     float *y) {
    Map map = {rows, depth, outputs, panels, bias, NULL, x, y, group_of(rows, depth * PANEL * 2), NULL, NULL};
    run(linear_item, &map, parts(rows, ROW_CHUNK) * parts(parts(outputs, PANEL), map.group));
}

/* `weight` [outputs, depth] into panels. */
typedef struct { int64_t depth, outputs; const void *weight; void *panels; } Packing;

static void pack_bfloat16_item(const void *task, int64_t panel) {
    const Packing *p = task;
    EACH(input, p->depth) EACH(lane, LANES) EACH(half, 2) {
        int64_t output = panel * PANEL + half * LANES + lane;
        uint16_t value = output < p->outputs ? ((const uint16_t *)p->weight)[output * p->depth + input] : 0;
        ((uint16_t *)p->panels)[((panel * p->depth + input) * LANES + lane) * 2 + half] = value;
    }
}

void pack_bfloat16(int64_t depth, int64_t outputs, const void *weight, void *panels) {
    Packing packing = {depth, outputs, weight, panels};
    run(pack_bfloat16_item, &packing, parts(outputs, PANEL));
}

/* ---- Linear maps with int8 weights, one scale an output. The inputs of a row become int16 with one scale, as fine as sums
   of 32 bits allow: 127 · finest · depth < 2³¹. Weights of two neighbouring inputs lie side by side, since instructions
   multiply and add pairs; an odd depth has one more input of zero. */

typedef int8_t bytes_narrow __attribute__((vector_size(2 * LANES), aligned(1), may_alias));
typedef int16_t shorts __attribute__((vector_size(4 * LANES), aligned(2), may_alias));

/* sums + the products of pairs of int16, added */
INLINE ints add_pairs(ints sums, shorts weights, shorts inputs) {
#if LANES == 16 && defined(__AVX512VNNI__)
    return (ints)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)weights, (__m512i)inputs);
#elif LANES == 16
    return sums + (ints)_mm512_madd_epi16((__m512i)weights, (__m512i)inputs);
#elif defined(__AVX2__)
    return sums + (ints)_mm256_madd_epi16((__m256i)weights, (__m256i)inputs);
#else
    ints low = ((ints)weights << 16 >> 16) * ((ints)inputs << 16 >> 16);
    return sums + low + ((ints)weights >> 16) * ((ints)inputs >> 16);
#endif
}

INLINE void int8_product(const int rows, const int16_t *x, int64_t pitch, const int8_t *panel, int64_t depth,
                         int64_t ahead, ints (*out)[2]) {
    ints sums[ROWS][2] = {{{0}}};
    for (int64_t input = 0; input < depth; input += 2, panel += 2 * PANEL) {
        shorts low = __builtin_convertvector(*(const bytes_narrow *)panel, shorts);
        shorts high = __builtin_convertvector(*(const bytes_narrow *)(panel + PANEL), shorts);
        if (ahead) ask(panel, ahead, 2 * PANEL);
        UNROLL for (int row = 0; row < rows; row++) {
            int32_t pair;
            memcpy(&pair, x + row * pitch + input, sizeof pair);
            shorts inputs = (shorts)(pair - (ints){0});
            sums[row][0] = add_pairs(sums[row][0], low, inputs);
            sums[row][1] = add_pairs(sums[row][1], high, inputs);
        }
    }
    UNROLL for (int row = 0; row < rows; row++) out[row][0] = sums[row][0], out[row][1] = sums[row][1];
}

#define INT8_CASE(rows) case rows: int8_product(rows, x, pitch, panel, pitch, ahead, out); break;

static void int8_item(const void *task, int64_t item) {
    const Map *m = task;
    int64_t panels = parts(m->outputs, PANEL), groups = parts(panels, m->group), pitch = m->depth + m->depth % 2;
    int64_t first_row = item / groups * ROW_CHUNK, first = item % groups * m->group;
    int64_t end = least(first_row + ROW_CHUNK, m->rows);
    for (int64_t number = first; number < least(first + m->group, panels); number++) {
        const int8_t *panel = (const int8_t *)m->panels + number * PANEL * pitch;
        const float *scales = m->scales + number * PANEL, *bias = m->bias ? m->bias + number * PANEL : NO_BIAS;
        int64_t blocks = parts(end - first_row, ROWS), few = m->rows <= 2 * ROWS;
        for (int64_t row = first_row, left = blocks; left; left--) {
            const int16_t *x = m->quantised + row * pitch;
            int64_t some = parts(end - row, left);
            int64_t ahead = !few ? 0 : blocks == 1 ? AHEAD_BYTES : left == 1 ? PANEL * pitch : 0;
            ints out[ROWS][2];
            switch (some) {
                INT8_CASE(1) INT8_CASE(2) INT8_CASE(3) INT8_CASE(4) INT8_CASE(5) INT8_CASE(6)
#if ROWS > 6
                INT8_CASE(7) INT8_CASE(8) INT8_CASE(9) INT8_CASE(10) INT8_CASE(11) INT8_CASE(12)
#endif
            }
            for (int64_t done = 0; done < some; done++, row++) {
                floats both[2];
                for (int half = 0; half < 2; half++)
                    both[half] = __builtin_convertvector(out[done][half], floats) * m->row_scales[row] *
                                 *(const floats *)(scales + half * LANES) + *(const floats *)(bias + half * LANES);
                memcpy(m->y + row * m->outputs + number * PANEL, both,
                       least(PANEL, m->outputs - number * PANEL) * sizeof(float));
            }
        }
    }
}

static void quantise_item(const void *task, int64_t row) {
    const Map *m = task;
    int64_t pitch = m->depth + m->depth % 2;
    const float *x = m->x + row * m->depth;
    int16_t *to = (int16_t *)m->quantised + row * pitch;
    float largest = 0, finest = (float)least(32767, INT32_MAX / 127 / most(1, m->depth) - 1);
    int finite = 1;
    EACH(i, m->depth) {
        float size = fabsf(x[i]);
        largest = size > largest ? size : largest;
        finite &= size <= 3.4e38f;
    }
    float scale = largest / finest, inverse = largest > 0 ? finest / largest : 0;
    ((float *)m->row_scales)[row] = finite ? scale : NAN;     /* what is not finite stays so */
    EACH(i, m->depth) to[i] = finite ? (int16_t)rintf(x[i] * inverse) : 0;
    if (pitch > m->depth) to[m->depth] = 0;
}

/* `quantised`: int16 [rows, depth, made even], `row_scales` [rows]: room for what it makes of x. */
void linear_int8(int64_t rows, int64_t depth, int64_t outputs, const float *x, const void *panels, const float *scales,
                 const float *bias, int16_t *quantised, float *row_scales, float *y) {
    Map map = {rows, depth, outputs, panels, bias, scales, x, y, group_of(rows, depth * PANEL), quantised, row_scales};
    run(quantise_item, &map, rows);
    run(int8_item, &map, parts(rows, ROW_CHUNK) * parts(parts(outputs, PANEL), map.group));
}

static void pack_int8_item(const void *task, int64_t panel) {
    const Packing *p = task;
    int64_t pitch = p->depth + p->depth % 2;
    EACH(input, pitch) EACH(column, PANEL) {
        int64_t output = panel * PANEL + column;
        int there = output < p->outputs && input < p->depth;
        ((int8_t *)p->panels)[panel * PANEL * pitch + (input / 2 * PANEL + column) * 2 + input % 2] =
            there ? ((const int8_t *)p->weight)[output * p->depth + input] : 0;
    }
}

void pack_int8(int64_t depth, int64_t outputs, const void *weight, void *panels) {
    Packing packing = {depth, outputs, weight, panels};
    run(pack_int8_item, &packing, parts(outputs, PANEL));
}

int panel_outputs(void) { return PANEL; }

const char *instructions(void) {
#if LANES == 16 && defined(__AVX512VNNI__)
    return "AVX-512 VNNI";
#elif LANES == 16
    return "AVX-512";
#elif defined(__AVX2__)
    return "AVX2";
#elif defined(__aarch64__)
    return "NEON";
#else
    return "plain";
#endif
}

/* ---- What is done to each token by itself. */

INLINE floats chosen(ints yes, floats a, floats b) { return (floats)((yes & (ints)a) | (~yes & (ints)b)); }

/* eˣ to some 1e-7: 2ⁿ · 2ᶠ, f in [−½, ½] by its series. */
INLINE floats exponential(floats x) {
    floats scaled = x * 1.44269504f;
    scaled = chosen(scaled < -126.0f, ZERO - 126.0f, scaled);
    scaled = chosen(scaled > 127.0f, ZERO + 127.0f, scaled);
    floats shifted = scaled + 12582912.0f;                   /* 1.5 · 2²³: the nearest integer is in the low bits */
    floats f = scaled - (shifted - 12582912.0f);
    floats p = f * 1.5252734e-5f + 1.5403530e-4f;
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return (floats)((ints)p + ((ints)shifted << 23));
}

INLINE floats sigmoid(floats x) { return 1.0f / (1.0f + exponential(ZERO - x)); }
INLINE floats hyperbolic_tangent(floats x) { return 1.0f - 2.0f / (1.0f + exponential(x + x)); }

typedef struct {
    int64_t rows, width;
    float *x;
    const float *added, *weight;
    float *out;
    float epsilon;
} Norm;

static float mean_of_squares(const float *x, int64_t width) {
    floats sums[WAYS] = {ZERO, ZERO, ZERO, ZERO};
    int64_t i = 0;
    for (; i + WAYS * LANES <= width; i += WAYS * LANES)
        for (int way = 0; way < WAYS; way++) {
            floats some = *(const floats *)(x + i + way * LANES);
            sums[way] += some * some;
        }
    float sum = 0;
    for (; i < width; i++) sum += x[i] * x[i];
    sums[0] += sums[1] + (sums[2] + sums[3]);
    EACH(lane, LANES) sum += sums[0][lane];
    return sum / width;
}

static void norm_item(const void *task, int64_t row) {
    const Norm *n = task;
    float *x = n->x + row * n->width, *out = n->out + row * n->width;
    if (n->added) EACH(i, n->width) x[i] += n->added[row * n->width + i];
    float scale = 1.0f / sqrtf(mean_of_squares(x, n->width) + n->epsilon);
    EACH(i, n->width) out[i] = x[i] * scale * n->weight[i];
}

/* x += added, if there is such; out = x / √(mean(x²) + ε) · weight. [rows, width] */
void add_norm(int64_t rows, int64_t width, float *x, const float *added, const float *weight, float epsilon, float *out) {
    Norm norm = {rows, width, x, added, weight, out, epsilon};
    run(norm_item, &norm, rows);
}

enum { SILU, GELU_TANH };
typedef struct { int64_t width; int kind; const float *gate_up; float *out; } Gate;

INLINE floats gate_of(int kind, floats x) {
    if (kind == SILU) return x * sigmoid(x);
    return 0.5f * x * (1.0f + hyperbolic_tangent(0.7978845608f * (x + 0.044715f * x * x * x)));
}

static void gate_item(const void *task, int64_t row) {
    const Gate *g = task;
    const float *gate = g->gate_up + row * 2 * g->width, *up = gate + g->width;
    float *out = g->out + row * g->width;
    int64_t i = 0;
    for (; i + LANES <= g->width; i += LANES)
        *(floats *)(out + i) = gate_of(g->kind, *(const floats *)(gate + i)) * *(const floats *)(up + i);
    if (i < g->width) {
        floats x = ZERO;
        memcpy(&x, gate + i, (g->width - i) * sizeof(float));
        x = gate_of(g->kind, x);
        for (int lane = 0; i < g->width; i++, lane++) out[i] = x[lane] * up[i];
    }
}

/* out [rows, width] of gate and up, side by side. */
void gated(int64_t rows, int64_t width, int kind, const float *gate_up, float *out) {
    Gate gate = {width, kind, gate_up, out};
    run(gate_item, &gate, rows);
}

typedef struct {
    int64_t heads, query_heads, head_dim, half, pitch;
    float *x;
    const float *weight, *cosine, *sine;
    float epsilon, query_scale;
} Rotation;

/* Value i is paired with value i + half; those behind both stay. */
INLINE void rotate(float *head, const float *cosine, const float *sine, int64_t half) {
    EACH(i, half) {
        float first = head[i], second = head[i + half];
        head[i] = first * cosine[i] - second * sine[i];
        head[i + half] = second * cosine[i] + first * sine[i];
    }
}

static void rotate_item(const void *task, int64_t token) {
    const Rotation *r = task;
    EACH(number, r->heads) {
        float *head = r->x + token * r->pitch + number * r->head_dim;
        if (r->weight) {
            float scale = 1.0f / sqrtf(mean_of_squares(head, r->head_dim) + r->epsilon);
            EACH(i, r->head_dim) head[i] *= scale * r->weight[number * r->head_dim + i];
        }
        rotate(head, r->cosine + token * r->half, r->sine + token * r->half, r->half);
        if (number < r->query_heads && r->query_scale != 1.0f) EACH(i, r->head_dim) head[i] *= r->query_scale;
    }
}

/* The first `heads` heads of x [tokens, pitch], in place: each normed, if there is a weight [heads, head_dim], then turned
   by cosine and sine [tokens, half], then queries scaled. */
void rotate_heads(int64_t tokens, int64_t heads, int64_t query_heads, int64_t head_dim, int64_t half, int64_t pitch,
                  float *x, const float *weight, float epsilon, const float *cosine, const float *sine, float query_scale) {
    Rotation rotation = {heads, query_heads, head_dim, half, pitch, x, weight, cosine, sine, epsilon, query_scale};
    run(rotate_item, &rotation, tokens);
}

/* ---- Attention over pages (what a token sees: kernel/device/row.py). Keys and values of a head lie slot after slot. An
   item is a block of neighbouring tokens of a row, with all queries of one KV head: so each page is read once for all of
   them. Tokens are read in tiles: their keys are turned to [head dim, TILE] and widened; the softmax is kept running,
   with the maximum so far subtracted (Milakov & Gimelshein 2018). */

typedef struct {                      /* of a step; the fields of kernel/device/batch.py by their names */
    int64_t rows, items, page_tokens, slots, kv_heads, group, head_dim, kind, window, half;
    const int32_t *item_rows, *item_firsts;          /* [items] the row, and the first of its tokens */
    const int32_t *positions, *new_slots, *row_starts, *segment_starts, *segment_tokens, *segment_firsts;
    const int32_t *segment_skips, *segment_shifts, *page_starts, *pages, *slot_positions;
    const int32_t *turns;                            /* [segments] which of the angles its queries are turned by, or −1 */
    const float *angles;                             /* [·, 2, half] cosines and sines */
    const int64_t *named_starts;                     /* [rows] into `named`, or −1: no ranges */
    const uint8_t *named;                            /* [tokens of the row, offsets] is it in a range of the token? */
    int64_t item_tokens;
    float cap;
} Reading;

typedef struct {
    const Reading *r;
    const float *queries, *keys, *values, *sinks;
    int64_t pitch;
    char *held_keys, *held_values;
    float *out;
    int64_t tokens;
} Layer;

typedef struct {
    float queries[MOST_QUERIES * MOST_HEAD_DIM], turned[MOST_QUERIES * MOST_HEAD_DIM], sums[MOST_QUERIES * MOST_HEAD_DIM];
    float keys[MOST_HEAD_DIM * TILE], values[TILE * MOST_HEAD_DIM], scores[MOST_QUERIES * TILE];
    float rows[8 * MOST_HEAD_DIM], largest[MOST_QUERIES], weights[MOST_QUERIES];
    int32_t offsets[TILE], positions[TILE];
    int64_t slots[TILE], count;
    int64_t wide;                                    /* head_dim, up to whole panels */
} Block;

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define TRANSPOSES 1
typedef float eight __attribute__((vector_size(32), aligned(4), may_alias));
#define MIXED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

/* to[i][j] = from[j][i], 8 × 8 */
static void transpose(const float *from, int64_t pitch, float *to, int64_t to_pitch) {
    eight r[8], t[8];
    UNROLL for (int i = 0; i < 8; i++) r[i] = *(const eight *)(from + i * pitch);
    UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = MIXED(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = MIXED(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    UNROLL for (int i = 0; i < 8; i += 4) UNROLL for (int j = 0; j < 2; j++) {
        r[i + 2 * j] = MIXED(t[i + j], t[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        r[i + 2 * j + 1] = MIXED(t[i + j], t[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        *(eight *)(to + i * to_pitch) = MIXED(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        *(eight *)(to + (i + 4) * to_pitch) = MIXED(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}
#endif
#endif

/* Keys of up to eight tokens, b->rows, into their columns. */
static void turn_keys(Block *b, int64_t token, int64_t count, int64_t size) {
    int64_t i = 0;
#ifdef TRANSPOSES
    for (; i + 8 <= size; i += 8) transpose(b->rows + i, MOST_HEAD_DIM, b->keys + i * TILE + token, TILE);
#endif
    for (; i < size; i++) EACH(other, count) b->keys[i * TILE + token + other] = b->rows[other * MOST_HEAD_DIM + i];
}

static void read_tile(const Layer *l, Block *b, int64_t head) {
    const Reading *r = l->r;
    int64_t size = r->head_dim;
    EACH(token, b->count) {
        int64_t at = (head * r->slots + b->slots[token]) * size;
        float *key = b->rows + token % 8 * MOST_HEAD_DIM, *value = b->values + token * b->wide;
        if (r->kind == BFLOAT16) {
            const uint16_t *held_key = (const uint16_t *)l->held_keys + at, *held_value = (const uint16_t *)l->held_values + at;
            EACH(i, size) key[i] = widened(held_key[i]);
            EACH(i, size) value[i] = widened(held_value[i]);
        } else {
            memcpy(key, (const float *)l->held_keys + at, size * sizeof(float));
            memcpy(value, (const float *)l->held_values + at, size * sizeof(float));
        }
        if (token % 8 == 7 || token == b->count - 1) turn_keys(b, token / 8 * 8, token % 8 + 1, size);
    }
}

INLINE float largest_of(floats some) {
    float found = some[0];
    EACH(lane, LANES) found = some[lane] > found ? some[lane] : found;
    return found;
}

INLINE float sum_of(floats some) {
    float found = 0;
    EACH(lane, LANES) found += some[lane];
    return found;
}

/* 0 for a token of the tile that token `number` of the row sees, else −∞. */
static void hide(const Reading *r, const Block *b, int64_t row, int64_t number, int64_t offset, int64_t length,
                 float *hidden) {
    int32_t own = r->positions[r->row_starts[row] + number];
    const uint8_t *named = r->named_starts[row] < 0 ? NULL : r->named + r->named_starts[row] + number * length;
    EACH(i, b->count) {
        int seen = b->offsets[i] <= offset && b->positions[i] <= own && (!r->window || b->positions[i] > own - r->window);
        hidden[i] = seen && (!named || named[b->offsets[i]]) ? 0.0f : -INFINITY;
    }
}

/* The scores of a query become weights; the running sums of the query are brought to the new maximum. */
static void add_scores(const Reading *r, Block *b, int64_t number, const float *hidden) {
    floats *scores = (floats *)(b->scores + number * TILE), top = ZERO - INFINITY, sum = ZERO;
    EACH(i, TILE / LANES) {
        if (r->cap != 0.0f) scores[i] = r->cap * hyperbolic_tangent(scores[i] * (1.0f / r->cap));
        scores[i] += *(const floats *)(hidden + i * LANES);
        top = chosen(scores[i] > top, scores[i], top);
    }
    float before = b->largest[number], largest = largest_of(top);
    largest = before > largest ? before : largest;
    EACH(i, TILE / LANES) {
        ints seen = *(const floats *)(hidden + i * LANES) == 0.0f;
        scores[i] = (floats)(seen & (ints)exponential(scores[i] - largest));
        sum += scores[i];
    }
    float kept = before == largest ? 1.0f : before == -INFINITY ? 0.0f : expf(before - largest);
    b->largest[number] = largest;
    b->weights[number] = b->weights[number] * kept + sum_of(sum);
    if (kept != 1.0f) EACH(i, b->wide / LANES) ((floats *)(b->sums + number * b->wide))[i] *= kept;
}

/* Adds what a tile says to the sums of `tokens` tokens from row-local `first` on. `all`: each sees all of it. */
static void add_tile(const Layer *l, Block *b, int64_t row, int64_t first, int64_t tokens, int all, int64_t before,
                     const float *queries, int64_t length) {
    const Reading *r = l->r;
    int64_t many = tokens * r->group;
    EACH(part, TILE / PANEL)
        products(FLOAT32, many, queries, r->head_dim, b->keys + part * PANEL, TILE, r->head_dim,
                 b->scores + part * PANEL, TILE, PANEL, NO_BIAS);
    float hidden[TILE];
    EACH(i, TILE) hidden[i] = i < b->count ? 0.0f : -INFINITY;
    EACH(token, tokens) {
        if (!all) hide(r, b, row, first + token, before + first + token, length, hidden);
        EACH(query, r->group) add_scores(r, b, token * r->group + query, hidden);
    }
    EACH(part, b->wide / PANEL)
        products(FLOAT32, many, b->scores, TILE, b->values + part * PANEL, b->wide, b->count, b->sums + part * PANEL,
                 b->wide, PANEL, NULL);
}

/* A full tile, or the last of those that are read with one shift. */
static void flush(const Layer *l, Block *b, int64_t head, int64_t row, int64_t first, int64_t tokens, int64_t before,
                  const float *queries, int64_t length) {
    const Reading *r = l->r;
    const int32_t *own = r->positions + r->row_starts[row] + first;
    int32_t low = INT32_MAX, high = INT32_MIN, own_low = INT32_MAX, own_high = INT32_MIN;
    if (!b->count) return;
    EACH(i, b->count) low = least(low, b->positions[i]), high = most(high, b->positions[i]);
    EACH(i, tokens) own_low = least(own_low, own[i]), own_high = most(own_high, own[i]);
    int none = low > own_high || (r->window && high <= own_low - r->window);
    if (!none) {
        int all = b->offsets[b->count - 1] <= before + first && high <= own_low
                  && (!r->window || low > own_high - r->window) && r->named_starts[row] < 0;
        read_tile(l, b, head);
        add_tile(l, b, row, first, tokens, all, before, queries, length);
    }
    b->count = 0;
}

/* The queries of the block, as if keys stood where the segment is read. */
static const float *turned_for(const Reading *r, Block *b, int64_t segment, int64_t many) {
    if (r->turns[segment] < 0) return b->queries;
    const float *angle = r->angles + r->turns[segment] * 2 * r->half;
    memcpy(b->turned, b->queries, many * r->head_dim * sizeof(float));
    EACH(number, many) rotate(b->turned + number * r->head_dim, angle, angle + r->half, r->half);
    return b->turned;
}

/* What is read next comes from anywhere in the pool. */
static void ask_page(const Layer *l, int64_t head, int64_t page) {
    const Reading *r = l->r;
    int64_t size = r->head_dim * (r->kind == BFLOAT16 ? 2 : 4);
    int64_t at = (head * r->slots + page * r->page_tokens) * size, bytes = least(TILE, r->page_tokens) * size;
    for (int64_t line = 0; line < bytes; line += 64) {
        __builtin_prefetch(l->held_keys + at + line);
        __builtin_prefetch(l->held_values + at + line);
    }
}

static void attention_item(const void *task, int64_t item) {
    const Layer *l = task;
    const Reading *r = l->r;
    Block block, *b = &block;
    int64_t head = item % r->kv_heads, row = r->item_rows[item / r->kv_heads], first = r->item_firsts[item / r->kv_heads];
    int64_t start = r->row_starts[row] + first, count = r->row_starts[row + 1] - r->row_starts[row];
    int64_t tokens = least(r->item_tokens, count - first), many = tokens * r->group;
    int64_t segments = r->segment_starts[row], last = r->segment_starts[row + 1] - 1;
    int64_t length = r->segment_firsts[last] + r->segment_tokens[last], before = length - count;
    b->wide = parts(r->head_dim, PANEL) * PANEL, b->count = 0;
    memset(b->sums, 0, many * b->wide * sizeof(float));
    memset(b->values, 0, TILE * b->wide * sizeof(float));
    memset(b->keys, 0, r->head_dim * TILE * sizeof(float));
    EACH(number, many) {
        const float *from = l->queries + (start + number / r->group) * l->pitch + (head * r->group + number % r->group) * r->head_dim;
        EACH(i, r->head_dim) b->queries[number * r->head_dim + i] = from[i] / sqrtf((float)r->head_dim);
        b->largest[number] = -INFINITY, b->weights[number] = 0;
    }
    for (int64_t segment = segments; segment <= last; segment++) {
        const float *queries = turned_for(r, b, segment, many);
        int64_t first_offset = r->segment_firsts[segment], place = r->segment_skips[segment] % r->page_tokens;
        int64_t left = least(r->segment_tokens[segment], before + first + tokens - first_offset);
        const int32_t *page = r->pages + r->page_starts[segment] + r->segment_skips[segment] / r->page_tokens;
        for (; left > 0; page++, place = 0) {
            int64_t run = least(left, r->page_tokens - place), slot = *page * r->page_tokens + place;
            if (left > run) ask_page(l, head, page[1]);
            left -= run;
            for (int64_t some; run; run -= some, slot += some, first_offset += some) {
                some = least(run, TILE - b->count);
                EACH(i, some) {
                    b->slots[b->count + i] = slot + i, b->offsets[b->count + i] = first_offset + i;
                    b->positions[b->count + i] = r->slot_positions[slot + i] + r->segment_shifts[segment];
                }
                b->count += some;
                if (b->count == TILE) flush(l, b, head, row, first, tokens, before, queries, length);
            }
        }
        if (segment == last || r->turns[segment] != r->turns[segment + 1])
            flush(l, b, head, row, first, tokens, before, queries, length);
    }
    EACH(number, many) {
        float largest = b->largest[number], weight = b->weights[number], kept = 1.0f;
        if (l->sinks && largest > -INFINITY) {
            float sink = l->sinks[head * r->group + number % r->group], above = sink > largest ? sink : largest;
            kept = expf(largest - above);
            weight = weight * kept + expf(sink - above);
        }
        float *to = l->out + ((start + number / r->group) * r->kv_heads + head) * r->group * r->head_dim + number % r->group * r->head_dim;
        EACH(i, r->head_dim) to[i] = weight > 0 ? b->sums[number * b->wide + i] * kept / weight : 0.0f;
    }
}

static void store_item(const void *task, int64_t token) {
    const Layer *l = task;
    const Reading *r = l->r;
    EACH(head, r->kv_heads) {
        int64_t at = (head * r->slots + r->new_slots[token]) * r->head_dim, from = token * l->pitch + head * r->head_dim;
        EACH(i, r->head_dim) {
            if (r->kind == BFLOAT16) {
                ((uint16_t *)l->held_keys)[at + i] = narrowed(l->keys[from + i]);
                ((uint16_t *)l->held_values)[at + i] = narrowed(l->values[from + i]);
            } else {
                ((float *)l->held_keys)[at + i] = l->keys[from + i];
                ((float *)l->held_values)[at + i] = l->values[from + i];
            }
        }
    }
}

/* Stores the new keys and values of a layer, all of them, then reads. `queries`, `keys` and `values` are rows of `pitch`
   values; `sinks` [heads] or none; `out` [tokens, heads, head_dim]. */
void attention(const Reading *reading, int64_t tokens, const float *queries, const float *keys, const float *values,
               int64_t pitch, const float *sinks, char *held_keys, char *held_values, float *out) {
    Layer layer = {reading, queries, keys, values, sinks, pitch, held_keys, held_values, out, tokens};
    run(store_item, &layer, tokens);
    run(attention_item, &layer, reading->items * reading->kv_heads);
}

int most_queries(void) { return MOST_QUERIES; }
int most_head_dim(void) { return MOST_HEAD_DIM; }
