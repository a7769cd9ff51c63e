/* Attention over pages (what a token sees: kernel/device/row.py). Keys and values of a head lie slot after slot. An
   item is a block of neighbouring tokens of a row, with all queries of one KV head: so each page is read once for all of
   them. Tokens are read in tiles: their keys are turned to [head dim, TILE] and widened; the softmax is kept running,
   with the maximum so far subtracted (Milakov & Gimelshein 2018). The tokens of a draft read what is before them together,
   and then each its ancestors alone: tile by tile they read what decoding would have read. */

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

typedef struct {                      /* tokens that are read at once: where they lie, and where they stand in the row */
    int64_t slots[TILE], count;
    int32_t offsets[TILE], positions[TILE];
} Tile;

typedef struct {
    float queries[MOST_QUERIES * MOST_HEAD_DIM], turned[MOST_QUERIES * MOST_HEAD_DIM], sums[MOST_QUERIES * MOST_HEAD_DIM];
    float keys[MOST_HEAD_DIM * TILE], values[TILE * MOST_HEAD_DIM], scores[MOST_QUERIES * TILE];
    float rows[8 * MOST_HEAD_DIM], largest[MOST_QUERIES], weights[MOST_QUERIES];
    int64_t wide;                                    /* head_dim, up to whole panels */
    Tile tile;
} Block;

typedef struct {                      /* a block of tokens of a row, and the head */
    const Layer *layer;
    int64_t head, row, first, start, tokens;         /* first: in the row; start: in the step */
    int64_t length, before;                          /* of the row, and without its own tokens */
    const uint8_t *named;                            /* [tokens, length], or none */
    int64_t whole;                                   /* up to this offset all are named by all of its tokens */
    int alone;                                       /* each token reads the row's own by itself */
    const float *queries;
} Item;

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
    EACH(token, b->tile.count) {
        int64_t at = (head * r->slots + b->tile.slots[token]) * size;
        float *key = b->rows + token % 8 * MOST_HEAD_DIM, *value = b->values + token * b->wide;
        if (r->kind == BFLOAT16) {
            const uint16_t *held_key = (const uint16_t *)l->held_keys + at, *held_value = (const uint16_t *)l->held_values + at;
            EACH(i, size) key[i] = widened(held_key[i]);
            EACH(i, size) value[i] = widened(held_value[i]);
        } else {
            memcpy(key, (const float *)l->held_keys + at, size * sizeof(float));
            memcpy(value, (const float *)l->held_values + at, size * sizeof(float));
        }
        if (token % 8 == 7 || token == b->tile.count - 1) turn_keys(b, token / 8 * 8, token % 8 + 1, size);
    }
}

/* By fours first: a chain of all lanes would take as long as their exponentials. */
INLINE float largest_of(floats some) {
    quad parts[LANES / 4], top;
    memcpy(parts, &some, sizeof parts);
    top = parts[0];
    UNROLL for (int i = 1; i < LANES / 4; i++) {
        quad_ints more = parts[i] > top;
        top = (quad)((more & (quad_ints)parts[i]) | (~more & (quad_ints)top));
    }
    float a = top[0] > top[1] ? top[0] : top[1], b = top[2] > top[3] ? top[2] : top[3];
    return a > b ? a : b;
}

INLINE float sum_of(floats some) {
    quad parts[LANES / 4];
    memcpy(parts, &some, sizeof parts);
    UNROLL for (int i = 1; i < LANES / 4; i++) parts[0] += parts[i];
    return (parts[0][0] + parts[0][1]) + (parts[0][2] + parts[0][3]);
}

/* 0 for what token `token` of the block sees of the tile, else −∞. */
static void hide(const Block *b, const Item *t, int64_t token, float *hidden) {
    const Reading *r = t->layer->r;
    int32_t own = r->positions[t->start + token], offset = t->before + t->first + token;
    const uint8_t *named = t->named ? t->named + token * t->length : NULL;
    EACH(i, b->tile.count) {
        int32_t position = b->tile.positions[i], place = b->tile.offsets[i];
        int seen = place <= offset && position <= own && (!r->window || position > own - r->window);
        hidden[i] = seen && (!named || named[place]) ? 0.0f : -INFINITY;
    }
}

/* The scores of query `number` become weights; its running sums are brought to the new maximum. */
static void add_scores(const Reading *r, Block *b, int64_t number, floats *scores, const float *hidden) {
    floats top = ZERO - INFINITY, sum = ZERO;
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

/* Adds what a tile says to the sums of `tokens` tokens of the block, the first of them number `token` of it. `all`: each
   sees all of the tile. */
static void add_tile(Block *b, const Item *t, int64_t token, int64_t tokens, int all) {
    const Reading *r = t->layer->r;
    int64_t many = tokens * r->group, number = token * r->group;
    products(FLOAT32, many, t->queries + number * r->head_dim, r->head_dim, b->keys, TILE / PANEL, PANEL, TILE,
             r->head_dim, NULL, b->scores, TILE, TILE, NO_BIAS);
    float hidden[TILE];
    EACH(i, TILE) hidden[i] = i < b->tile.count ? 0.0f : -INFINITY;
    EACH(other, tokens) {
        if (!all) hide(b, t, token + other, hidden);
        EACH(query, r->group)
            add_scores(r, b, number + other * r->group + query, (floats *)(b->scores + (other * r->group + query) * TILE),
                       hidden);
    }
    products(FLOAT32, many, b->scores, TILE, b->values, b->wide / PANEL, PANEL, b->wide, b->tile.count, NULL,
             b->sums + number * b->wide, b->wide, b->wide, NULL);
}

/* A full tile, or the last of those that are read with one shift, for some tokens of the block. */
static void flush(Block *b, const Item *t, int64_t token, int64_t tokens) {
    const Reading *r = t->layer->r;
    const int32_t *own = r->positions + t->start + token;
    int32_t low = INT32_MAX, high = INT32_MIN, own_low = INT32_MAX, own_high = INT32_MIN;
    if (!b->tile.count) return;
    EACH(i, b->tile.count) low = least(low, b->tile.positions[i]), high = most(high, b->tile.positions[i]);
    EACH(i, tokens) own_low = least(own_low, own[i]), own_high = most(own_high, own[i]);
    int none = low > own_high || (r->window && high <= own_low - r->window);
    if (!none) {
        int32_t last = b->tile.offsets[b->tile.count - 1];
        int all = last <= t->before + t->first + token && last < t->whole && high <= own_low
                  && (!r->window || low > own_high - r->window);
        read_tile(t->layer, b, t->head);
        add_tile(b, t, token, tokens, all);
    }
    b->tile.count = 0;
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

/* `run` tokens from a slot on go into the tile of so many tokens of the block. What a token that reads alone does not
   see is left out: so all that it sees lies in its tiles as it would if nothing else were there. */
static void add_slots(Block *b, const Item *t, int64_t slot, int64_t offset, int64_t run, int32_t shift, int64_t token,
                      int64_t tokens) {
    const Reading *r = t->layer->r;
    const uint8_t *named = t->alone && offset >= t->before ? t->named + token * t->length : NULL;
    for (int64_t i = 0, some; i < run; i += some) {
        if (named && !named[offset + i]) { some = 1; continue; }
        some = named ? 1 : least(run - i, TILE - b->tile.count);
        for (int64_t j = i; j < i + some; j++) {
            b->tile.slots[b->tile.count] = slot + j, b->tile.offsets[b->tile.count] = offset + j;
            b->tile.positions[b->tile.count++] = r->slot_positions[slot + j] + shift;
        }
        if (b->tile.count == TILE) flush(b, t, token, tokens);
    }
}

/* What lies from offset `from` to `to` of a segment. */
static void read_segment(Block *b, const Item *t, int64_t segment, int64_t from, int64_t to, int64_t token, int64_t tokens) {
    const Reading *r = t->layer->r;
    int64_t first = r->segment_firsts[segment], skip = r->segment_skips[segment];
    const int32_t *pages = r->pages + r->page_starts[segment], *end = r->pages + r->page_starts[segment + 1];
    const int32_t *asked = NULL;
    to = least(to, first + r->segment_tokens[segment]);
    for (int64_t offset = most(from, first), run; offset < to; offset += run) {
        int64_t place = skip + offset - first;
        const int32_t *page = pages + place / r->page_tokens;
        run = least(to - offset, r->page_tokens - place % r->page_tokens);
        for (asked = asked ? asked : page; asked < end && asked <= page + parts(TILE, r->page_tokens); asked++)
            ask_page(t->layer, t->head, *asked);
        add_slots(b, t, *page * r->page_tokens + place % r->page_tokens, offset, run, r->segment_shifts[segment], token,
                  tokens);
    }
}

/* The row's own tokens, read by each of the block by itself, behind what all of them have read. */
static void read_alone(Block *b, const Item *t, int64_t segment) {
    Tile begun = b->tile;
    EACH(token, t->tokens) {
        b->tile = begun;
        read_segment(b, t, segment, t->before, t->before + t->first + token + 1, token, 1);
        flush(b, t, token, 1);
    }
}

static Item item_of(const Layer *l, int64_t place) {
    const Reading *r = l->r;
    Item t = {.layer = l, .head = place % r->kv_heads, .row = r->item_rows[place / r->kv_heads],
              .first = r->item_firsts[place / r->kv_heads]};
    int64_t count = r->row_starts[t.row + 1] - r->row_starts[t.row], last = r->segment_starts[t.row + 1] - 1;
    t.start = r->row_starts[t.row] + t.first, t.tokens = least(r->item_tokens, count - t.first);
    t.length = t.whole = r->segment_firsts[last] + r->segment_tokens[last], t.before = t.length - count;
    if (r->named_starts[t.row] >= 0) {
        t.named = r->named + r->named_starts[t.row] + t.first * t.length, t.alone = count <= MOST_ALONE;
        EACH(token, t.tokens) {
            const uint8_t *hidden = memchr(t.named + token * t.length, 0, t.whole);
            if (hidden) t.whole = hidden - (t.named + token * t.length);
        }
    }
    return t;
}

static void attention_item(const void *task, int64_t place) {
    const Layer *l = task;
    const Reading *r = l->r;
    Item item = item_of(l, place), *t = &item;
    Block block, *b = &block;
    int64_t many = t->tokens * r->group, last = r->segment_starts[t->row + 1] - 1;
    b->wide = parts(r->head_dim, PANEL) * PANEL, b->tile.count = 0;
    memset(b->sums, 0, many * b->wide * sizeof(float));
    memset(b->values, 0, TILE * b->wide * sizeof(float));
    memset(b->keys, 0, r->head_dim * TILE * sizeof(float));
    EACH(number, many) {
        int64_t token = number / r->group, query = number % r->group;
        const float *from = l->queries + (t->start + token) * l->pitch + (t->head * r->group + query) * r->head_dim;
        EACH(i, r->head_dim) b->queries[number * r->head_dim + i] = from[i] / sqrtf((float)r->head_dim);
        b->largest[number] = -INFINITY, b->weights[number] = 0;
    }
    for (int64_t segment = r->segment_starts[t->row]; segment <= last; segment++) {
        t->queries = turned_for(r, b, segment, many);
        read_segment(b, t, segment, 0, t->alone ? t->before : t->before + t->first + t->tokens, 0, t->tokens);
        if (segment == last && t->alone) read_alone(b, t, segment);
        else if (segment == last || r->turns[segment] != r->turns[segment + 1]) flush(b, t, 0, t->tokens);
    }
    EACH(number, many) {
        float largest = b->largest[number], weight = b->weights[number], kept = 1.0f;
        if (l->sinks && largest > -INFINITY) {
            float sink = l->sinks[t->head * r->group + number % r->group], above = sink > largest ? sink : largest;
            kept = expf(largest - above);
            weight = weight * kept + expf(sink - above);
        }
        int64_t token = number / r->group, query = number % r->group;
        float *to = l->out + (((t->start + token) * r->kv_heads + t->head) * r->group + query) * r->head_dim;
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
