/* What a decoder computes on a CPU, over float32 activations: linear maps, norms, rotations, gates, paged attention.

   Written with the vectors of gcc and clang, so that one text serves AVX2, AVX-512 and NEON; intrinsics stand only where
   no operator says it. Compiled by build.py with -O3 -march=native, called from library_unsafe.py.

       vectors.h      lanes, and what C lacks          linear.h, int8.h    linear maps
       threads.h      who computes what                tokens.h            norms, gates, rotations
                                                       attention.h         attention over pages

   Invariants. Every function may be called from any thread, one at a time (`entered`). Sums are made in float32, in an
   order that depends neither on the number of threads nor on what else is in the step: so what a token's logits are to
   the last bit does not depend on whether it was decoded, prefilled or drafted, nor beside whom. Nothing is allocated
   but threads. */

#include "vectors.h"
#include "threads.h"
#include "linear.h"
#include "int8.h"
#include "tokens.h"
#include "attention.h"

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

int most_queries(void) { return MOST_QUERIES; }
int most_head_dim(void) { return MOST_HEAD_DIM; }
