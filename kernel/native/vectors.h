/* Vectors of the widest registers, and small things on numbers. */

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
#define TOGETHER 4                    /* panels that are computed together at most: hides the latency of an addition */
#define WAYS 4                        /* independent sums of squares, likewise */
#define DEPTH_CHUNK 640               /* of many rows: inputs and weights of a chunk stay in the first-level cache */
#define SHORT_CHUNK 128               /* of few rows in two blocks: the second finds the weights in the first-level cache */
#define AHEAD (1024 / PANEL)          /* inputs before which weights are asked for, where they are read once */
#define ROW_CHUNK 192                 /* rows that share a chunk while it is in the second-level cache */
#define MOST_QUERIES 64               /* of a block of attention: tokens × queries of a KV head */
#define MOST_HEAD_DIM 256
#define MOST_ALONE 129                /* tokens of a row with ranges that each read the row's own alone: a draft, its root */
#define TILE 32                       /* tokens that are read at once */

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define EACH(variable, end) for (int64_t variable = 0; variable < (end); variable++)

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t quad_ints __attribute__((vector_size(16), aligned(4), may_alias));

static const floats ZERO = {0};

/* The value stays in a register: else gcc loads it anew for every row that is multiplied by it. */
#if defined(__AVX__)
#define HELD(value) __asm__("" : "+v"(value))
#else
#define HELD(value)
#endif

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
