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
