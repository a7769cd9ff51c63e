/* Linear maps, y = x · wᵀ + bias. Weights lie in panels of PANEL outputs, input after input; outputs past the last are
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
        HELD(*low);
        HELD(*high);
    }
}

/* Of few rows the weights come from memory: those that are read next are asked for meanwhile, `pace` bytes an input. */
typedef struct { const char *place; int64_t pace; } Asked;

/* out[panel][row][half] += Σ x[row][input] · panel[input][half], one input after the other: so a sum is the same to its
   last bit whatever the number of rows. Where rows are few, several panels are computed together: enough sums are under
   way then to hide the latency of an addition. Rows of x lie `pitch` values apart, inputs `apart`, panels `across`;
   `rows`, `panels` and `apart` are constants where it is called. */
INLINE void product(const int rows, const int panels, const int kind, const float *x, int64_t pitch, const int apart,
                    const void *weights, int64_t across, int64_t step, int64_t depth, Asked next,
                    floats (*out)[ROWS][2]) {
    int64_t size = kind == BFLOAT16 ? sizeof(uint16_t) : sizeof(float);
    floats low, high;
    EACH(input, depth) {
        UNROLL for (int panel = 0; panel < panels; panel++) {
            if (kind == BFLOAT16 && apart == 1) __builtin_prefetch(next.place + panel * across * size);
            fetch(kind, (const char *)weights + panel * across * size, step, input, &low, &high);
            UNROLL for (int row = 0; row < rows; row++) {
                out[panel][row][0] += x[row * pitch + input * apart] * low;
                out[panel][row][1] += x[row * pitch + input * apart] * high;
            }
        }
        next.place += next.pace;
    }
}

/* The same with y in memory. y has `columns` outputs; those past them are not written. */
INLINE void product_at(const int rows, const int panels, const int kind, const float *x, int64_t pitch, const int apart,
                       const void *weights, int64_t across, int64_t step, int64_t depth, Asked next, float *y,
                       int64_t y_pitch, int64_t columns, const float *start) {
    floats out[TOGETHER][ROWS][2];
    UNROLL for (int panel = 0; panel < panels; panel++)
        UNROLL for (int row = 0; row < rows; row++) {
            const float *from = (start ? start : y + row * y_pitch) + panel * PANEL;
            if (start || columns >= (panel + 1) * PANEL) {
                out[panel][row][0] = *(const floats *)from;
                out[panel][row][1] = *(const floats *)(from + LANES);
            } else {
                out[panel][row][0] = out[panel][row][1] = ZERO;
                memcpy(out[panel][row], from, (columns - panel * PANEL) * sizeof(float));
            }
        }
    product(rows, panels, kind, x, pitch, apart, weights, across, step, depth, next, out);
    UNROLL for (int panel = 0; panel < panels; panel++)
        UNROLL for (int row = 0; row < rows; row++) {
            float *to = y + row * y_pitch + panel * PANEL;
            if (columns >= (panel + 1) * PANEL) {
                *(floats *)to = out[panel][row][0];
                *(floats *)(to + LANES) = out[panel][row][1];
            } else {
                memcpy(to, out[panel][row], (columns - panel * PANEL) * sizeof(float));
            }
        }
}

#define BY_PANELS(rows, count) \
    for (; left >= count; left -= count) { \
        product_at(rows, count, kind, x, pitch, apart, weights, across, step, depth, next, y, y_pitch, columns, start); \
        weights = (const char *)weights + count * across * size, next.place += count * across * size; \
        y += count * PANEL, columns -= count * PANEL, start += start ? count * PANEL : 0; \
    }

#define ROW_CASE(rows, together) case rows: BY_PANELS(rows, together) BY_PANELS(rows, 1) break;

/* Of `panels` panels, which lie `across` values apart. */
INLINE void product_rows(const int kind, int64_t rows, const float *x, int64_t pitch, const int apart, const void *weights,
                         int64_t panels, int64_t across, int64_t step, int64_t depth, Asked next, float *y,
                         int64_t y_pitch, int64_t columns, const float *start) {
    int64_t left = panels, size = kind == BFLOAT16 ? sizeof(uint16_t) : sizeof(float);
    switch (rows) {
        ROW_CASE(1, 4) ROW_CASE(2, 2) ROW_CASE(3, 2) ROW_CASE(4, 1) ROW_CASE(5, 1) ROW_CASE(6, 1)
#if ROWS > 6
        ROW_CASE(7, 1) ROW_CASE(8, 1) ROW_CASE(9, 1) ROW_CASE(10, 1) ROW_CASE(11, 1) ROW_CASE(12, 1)
#endif
    }
}

/* Rows are cut into blocks of almost the same size, none above ROWS; each asks for its share of the panels' depth that
   is read next. With a `start` there are at most TOGETHER panels. */
static void products(const int kind, int64_t rows, const float *x, int64_t pitch, const void *weights, int64_t panels,
                     int64_t across, int64_t step, int64_t depth, const char *next, float *y, int64_t y_pitch,
                     int64_t columns, const float *start) {
    Asked asked = {next, PANEL * 2 / parts(rows, ROWS)};
    for (int64_t left = parts(rows, ROWS); left; left--, asked.place += depth * asked.pace) {
        int64_t some = parts(rows, left);
        product_rows(kind, some, x, pitch, 1, weights, panels, across, step, depth, asked, y, y_pitch, columns, start);
        x += some * pitch, y += some * y_pitch, rows -= some;
    }
}

/* The same of many rows and one panel. They are packed in blocks of ROWS, `block` values apart; in a block lies input
   after input. */
static void packed_products(int64_t rows, const float *x, int64_t block, const void *panel, int64_t depth, float *y,
                            int64_t y_pitch, int64_t columns, const float *start) {
    Asked nothing = {0};
    for (; rows > 0; rows -= ROWS, x += block, y += ROWS * y_pitch)
        product_rows(BFLOAT16, least(rows, ROWS), x, 1, ROWS, panel, 1, 0, PANEL, depth, nothing, y, y_pitch, columns,
                     start);
}

typedef struct {
    int64_t rows, depth, outputs;
    const void *panels;
    const float *bias, *scales;               /* scales: of outputs, for int8 */
    const float *x;
    float *y;
    int64_t group;                            /* panels of an item */
    float *packed;                            /* x, where there are many rows; of bfloat16 weights */
    const int16_t *quantised;
    const float *row_scales;
} Map;

static const float NO_BIAS[TOGETHER * PANEL];

/* What a panel's outputs begin with; none where inputs before have begun them. */
INLINE const float *start_of(const Map *m, int64_t panel, int64_t input) {
    return input ? NULL : m->bias ? m->bias + panel * PANEL : NO_BIAS;
}

/* Of few rows a panel is read to its end, what comes `ahead` inputs later asked for meanwhile. */
static void few_item(const void *task, int64_t item) {
    const Map *m = task;
    int64_t chunk = m->rows > ROWS ? SHORT_CHUNK : m->depth, ahead = m->rows > ROWS ? chunk : AHEAD;
    int64_t end = least((item + 1) * m->group, parts(m->outputs, PANEL));
    for (int64_t panel = item * m->group, some; panel < end; panel += some) {
        some = least(end - panel, m->rows > ROWS ? 1 : TOGETHER);
        for (int64_t input = 0; input < m->depth; input += chunk) {
            const uint16_t *weights = (const uint16_t *)m->panels + (panel * m->depth + input) * PANEL;
            products(BFLOAT16, m->rows, m->x + input, m->depth, weights, some, m->depth * PANEL, PANEL,
                     least(chunk, m->depth - input), (const char *)(weights + ahead * PANEL), m->y + panel * PANEL,
                     m->outputs, m->outputs - panel * PANEL, start_of(m, panel, input));
        }
    }
}

/* Of many rows a chunk of the inputs is multiplied by all panels. */
static void many_item(const void *task, int64_t item) {
    const Map *m = task;
    int64_t panels = parts(m->outputs, PANEL), groups = parts(panels, m->group), first = item % groups * m->group;
    int64_t first_row = item / groups * ROW_CHUNK, rows = least(ROW_CHUNK, m->rows - first_row);
    int64_t chunk = parts(m->depth, parts(m->depth, DEPTH_CHUNK));
    for (int64_t input = 0; input < m->depth; input += chunk)
        for (int64_t panel = first; panel < least(first + m->group, panels); panel++)
            packed_products(rows, m->packed + first_row * m->depth + input * ROWS, m->depth * ROWS,
                            (const uint16_t *)m->panels + (panel * m->depth + input) * PANEL,
                            least(chunk, m->depth - input), m->y + first_row * m->outputs + panel * PANEL, m->outputs,
                            m->outputs - panel * PANEL, start_of(m, panel, input));
}

static void pack_rows_item(const void *task, int64_t block) {
    const Map *m = task;
    int64_t rows = least(ROWS, m->rows - block * ROWS);
    const float *x = m->x + block * ROWS * m->depth;
    float *to = m->packed + block * ROWS * m->depth;
    if (rows == ROWS)
        EACH(input, m->depth) UNROLL for (int row = 0; row < ROWS; row++) to[input * ROWS + row] = x[row * m->depth + input];
    else
        EACH(input, m->depth) EACH(row, rows) to[input * ROWS + row] = x[row * m->depth + input];
}

/* So long that asking ahead pays, but several for each thread. */
static int64_t group_of(int64_t rows, int64_t panels, int64_t panel_bytes) {
    return rows > ROW_CHUNK ? 8 : most(1, least(131072 / panel_bytes, panels / (8 * threads_wanted)));
}

/* Rows up to here are few: they are read where they are. */
int few_rows(void) { return 2 * ROWS; }

/* `packed`: room for x, its rows made whole blocks; where rows are few, nothing. */
void linear_bfloat16(int64_t rows, int64_t depth, int64_t outputs, const float *x, const void *panels, const float *bias,
                     float *packed, float *y) {
    int64_t all = parts(outputs, PANEL);
    Map map = {rows, depth, outputs, panels, bias, NULL, x, y, group_of(rows, all, depth * PANEL * 2), packed, NULL, NULL};
    int64_t groups = parts(all, map.group);
    if (packed) {
        run(pack_rows_item, &map, parts(rows, ROWS));
        run(many_item, &map, parts(rows, ROW_CHUNK) * groups);
    } else {
        run(few_item, &map, groups);
    }
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
