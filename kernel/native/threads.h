/* Threads. Work is a number of items; whoever is awake takes the next one, and who calls always takes part. So a
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
static int threads_started = 1;
static atomic_int threads_wanted = 1;

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
        if (!atomic_load(&job_open) || (int64_t)number >= atomic_load(&threads_wanted)) {
            pthread_mutex_lock(&sleeping);
            atomic_fetch_add(&asleep, 1);
            while (!atomic_load(&job_open) || (int64_t)number >= atomic_load(&threads_wanted))
                pthread_cond_wait(&woken, &sleeping);
            atomic_fetch_sub(&asleep, 1);
            pthread_mutex_unlock(&sleeping);
        }
        atomic_fetch_add(&inside, 1);
        if (atomic_load(&job_open)) take_items();
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

/* What a thread runs while it records is kept, tasks and all, in the order of its running; it may be run again in one
   go, as long as the memory that the tasks name stays where it is. */
typedef struct { Work work; int64_t items, bytes; } Kept;             /* and the task behind it */
static _Thread_local char *kept;
static _Thread_local int64_t kept_bytes, kept_room;

static void keep(Work work, const void *task, int64_t bytes, int64_t items) {
    Kept one = {work, items, parts(bytes, 16) * 16};
    if (kept_bytes + (int64_t)sizeof one + one.bytes <= kept_room) {
        memcpy(kept + kept_bytes, &one, sizeof one);
        memcpy(kept + kept_bytes + sizeof one, task, bytes);
    }
    kept_bytes += sizeof one + one.bytes;
}

/* Begins, in a room of so many bytes; `recorded` ends it, and answers how many it took: of more than there are, nothing
   is of use. */
void record(char *room, int64_t bytes) { kept = room, kept_room = bytes, kept_bytes = 0; }

int64_t recorded(void) {
    kept = NULL;
    return kept_bytes;
}

void replay(const char *room, int64_t bytes) {
    pthread_mutex_lock(&entered);
    for (const char *at = room; at < room + bytes; at += sizeof(Kept) + ((const Kept *)at)->bytes)
        parallel(((const Kept *)at)->work, at + sizeof(Kept), ((const Kept *)at)->items);
    pthread_mutex_unlock(&entered);
}

static void run_task(Work work, const void *task, int64_t bytes, int64_t items) {
    if (kept) keep(work, task, bytes, items);
    pthread_mutex_lock(&entered);
    parallel(work, task, items);
    pthread_mutex_unlock(&entered);
}

/* `task` points to the whole of it. */
#define run(work, task, items) run_task(work, task, sizeof *(task), items)
