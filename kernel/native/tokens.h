/* What is done to each token by itself. */

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
