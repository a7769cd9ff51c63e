/* Linear maps with int8 weights, one scale an output. The inputs of a row become int16 with one scale, as fine as sums
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

/* Of few rows the weights come from memory, and are asked for `ahead` bytes before they are needed: a little further in
   the panel, or, while a panel is read for the last time, in the next one, which lies behind it. */
INLINE void ask(const void *panel, int64_t bytes, int64_t count) {
    UNROLL for (int64_t line = 0; line < count; line += 64) __builtin_prefetch((const char *)panel + bytes + line);
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
            int64_t ahead = !few ? 0 : blocks == 1 ? AHEAD * PANEL * 2 : left == 1 ? PANEL * pitch : 0;
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
    int64_t all = parts(outputs, PANEL);
    Map map = {rows, depth, outputs, panels, bias, scales, x, y, group_of(rows, all, depth * PANEL), NULL, quantised,
               row_scales};
    run(quantise_item, &map, rows);
    run(int8_item, &map, parts(rows, ROW_CHUNK) * parts(all, map.group));
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
