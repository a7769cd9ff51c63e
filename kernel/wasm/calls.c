/* What happens on a guest's own stack when it makes a call that nearly always blocks and whose arguments are numbers: the
   call is written down where fiber_unsafe.py finds it, and the fiber is suspended. No Python runs for it.

       wasmtime ── record ──▶ arguments copied, not ready ──▶ suspended …… answered ──▶ ready ──▶ polled again

   Compiled when first needed (see calls_unsafe.py); without it the same is done in Python. Nothing is allocated
   here. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VAL = 32, PAYLOAD = 8, MOST_ARGUMENTS = 4 };         /* a wasmtime_component_val_t, and where its number is */

/* Of one fiber; the data of its store. `import` is 0 when nothing is recorded. */
typedef struct {
    bool ready;
    uint8_t *results;
    uint64_t import;
    bool (*poll)(void *future);
    void *future;
    uint64_t arguments[MOST_ARGUMENTS];
} call;
typedef struct { void *(*data)(void *context); uint64_t number; } import;
typedef struct { bool (*is_ready)(void *call); void *call; void (*finalizer)(void *); } continuation;

static bool is_ready(void *recorded) { return ((call *)recorded)->ready; }

/* A wasmtime_component_async_callback_t. Never given more than MOST_ARGUMENTS, all of them numbers. */
void record(const import *import, void *context, const void *type, const uint8_t *arguments, size_t count,
            uint8_t *results, size_t result_count, void **error, continuation *go) {
    (void)type; (void)result_count; (void)error;
    call *of = import->data(context);
    of->ready = false;
    of->results = results;
    of->import = import->number;
    for (size_t i = 0; i < count && i < MOST_ARGUMENTS; i++)
        of->arguments[i] = *(const uint64_t *)(arguments + VAL * i + PAYLOAD);
    *go = (continuation){is_ready, of, NULL};
}

/* Lets the fiber go on. -1: it is done; else the import that is recorded now, or 0. */
int64_t resume(call *of) {
    of->import = 0;
    return of->poll(of->future) ? -1 : (int64_t)of->import;
}
