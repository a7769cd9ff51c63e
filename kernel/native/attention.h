/* Attention over pages (what a token sees: kernel/device/row.py). Keys and values of a head lie slot after slot. An
   item is a block of neighbouring tokens of a row, with all queries of one KV head: so each page is read once for all of
   them. Tokens are read in tiles: their keys are turned to [head dim, TILE] and widened; the softmax is kept running,
   with the maximum so far subtracted (Milakov & Gimelshein 2018). */

typedef struct {                      /* of a step; the fields of kernel/device/batch.py by their names */
    int64_t rows, items, page_tokens, slots, kv_heads, group, head_dim, kind, window, half;
    const int32_t *item_rows, *item_firsts;          /* [items] the row, and the first of its tokens */
    const int32_t *positions, *new_slots, *row_starts, *segment_starts, *segment_tokens, *segment_firsts;
    const int32_t *segment_skips, *segment_shifts, *page_starts, *pages;
    const int32_t *turns;                            /* [segments] which of the angles its queries are turned by, or −1 */
    const int32_t *slot_positions;                   /* [slots] */
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
        products(FLOAT32, many, queries, r->head_dim, b->keys + part * PANEL, TILE, r->head_dim, NULL,
                 b->scores + part * PANEL, TILE, PANEL, NO_BIAS);
    float hidden[TILE];
    EACH(i, TILE) hidden[i] = i < b->count ? 0.0f : -INFINITY;
    EACH(token, tokens) {
        if (!all) hide(r, b, row, first + token, before + first + token, length, hidden);
        EACH(query, r->group) add_scores(r, b, token * r->group + query, hidden);
    }
    EACH(part, b->wide / PANEL)
        products(FLOAT32, many, b->scores, TILE, b->values + part * PANEL, b->wide, b->count, NULL,
                 b->sums + part * PANEL, b->wide, PANEL, NULL);
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

/* What is read next lies anywhere in the pool: it is asked for a tile ahead. */
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
        const int32_t *asked = page, *end = r->pages + r->page_starts[segment + 1];
        for (; left > 0; page++, place = 0) {
            int64_t run = least(left, r->page_tokens - place), slot = *page * r->page_tokens + place;
            for (; asked < end && asked <= page + parts(TILE, r->page_tokens); asked++) ask_page(l, head, *asked);
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
