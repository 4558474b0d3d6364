// One step of a decoder on a CPU: tokens in, the logits of the next tokens out.
//
// It is compiled where a C compiler is (lm/native/library.py), and computes what lm/model does in PyTorch
// for models with RMSNorm, rotary positions, grouped-query attention and SwiGLU. Two things are different:
//
// - Matrices may be Q8_0, Q4_0 or Q4_1, blocks of 32 weights along the input. The activations are then
//   rounded to blocks of 8 bits, too, and a block's product is one of whole numbers, scaled once.
// - A token's result does not depend on which tokens are run with it, nor on the number of threads: every sum
//   has one order. So a text that is run at once, in pieces or beside others gives the same bits.
//
// A matrix lies in groups of 16 rows, so that one vector register holds the same 4 inputs of 16 rows. In
// a group of n blocks: 16 scales (half precision) for each block; for Q4_1 also 16 minima; zeros up to a
// multiple of 64 bytes; then for each block its weights: 4 inputs of 16 rows at a time. The 8-bit ones
// are stored plus 128; 4 bits hold the inputs 0-15 in the low halves of the bytes, 16-31 in the high ones.
// float32, bfloat16 and float16 lie input by input, 16 rows each.
//
// Letters: T tokens, W d_model, H heads, G key heads, D head_dim, F d_ff, V vocabulary.

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define LANES 16
#define BLOCK 32
#define GROUPS_OF_4 (BLOCK / 4)
#define TILE 8 // tokens that share the loading of a weight
#define INLINE static inline __attribute__((always_inline))

typedef float v16f __attribute__((vector_size(64), may_alias));
typedef float v16f_unaligned __attribute__((vector_size(64), may_alias, aligned(4)));
typedef int32_t v16i __attribute__((vector_size(64), may_alias));
typedef uint32_t v16u __attribute__((vector_size(64), may_alias));
typedef uint16_t v16h __attribute__((vector_size(32), may_alias));
typedef uint8_t v64b __attribute__((vector_size(64), may_alias));

enum { FLOAT32, BFLOAT16, Q8_0, Q4_0, Q4_1, FLOAT16 };

typedef struct {
    int32_t kind, n_rows, n_cols, unused;
    const uint8_t *data; // aligned to 64 bytes
    const float *bias;   // or none
} Matrix;

typedef struct {
    const float *attention_norm, *mlp_norm, *query_norm, *key_norm; // the last two or none
    Matrix query, key, value, output, gate, up, down;
} Layer;

typedef struct {
    int32_t n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff, vocab_size, window; // 0: no window
    float norm_eps;
    int32_t n_positions; // for which there are angles
    const Layer *layers;
    Matrix embedding, head;
    const float *norm, *cos, *sin; // (n_positions, D / 2)
} Model;

// Keys and values of one text: for each layer and key head, keys as (max_len / 16, D, 16), values as
// (max_len, D rounded up to 16); max_len is a multiple of 16.
typedef struct {
    float *keys, *values;
    int32_t max_len, unused;
} Cache;

INLINE int rounded_up(int n, int to) { return (n + to - 1) / to * to; }

// Arithmetic of 16 lanes -------------------------------------------------------------------------------

INLINE v16f splat(float x) { return x - (v16f){}; }
INLINE v16i splat_int(int32_t x) { return x - (v16i){}; }
INLINE v16f load(const float *p) { return (v16f)(*(const v16f_unaligned *)p); }
INLINE void store(float *p, v16f x) { *(v16f_unaligned *)p = (v16f_unaligned)x; }
INLINE v16f to_float(v16i x) { return __builtin_convertvector(x, v16f); }

INLINE v16f fma16(v16f a, v16f b, v16f c) {
#if defined(__AVX512F__)
    return (v16f)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    union { v16f v; __m256 half[2]; } x = {a}, y = {b}, z = {c};
    for (int i = 0; i < 2; i++) z.half[i] = _mm256_fmadd_ps(x.half[i], y.half[i], z.half[i]);
    return z.v;
#else
    return a * b + c;
#endif
}

INLINE v16f from_half(const uint8_t *p) {
#if defined(__AVX512F__)
    return (v16f)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#else
    v16h half;
    memcpy(&half, p, sizeof half);
    v16u bits = __builtin_convertvector(half, v16u);
    v16u magnitude = (bits & 0x7fff) << 13, sign = (bits & 0x8000) << 16;
    // The exponents of the two formats differ by 112; a product also serves the smallest numbers.
    return (v16f)((v16u)((v16f)magnitude * splat(0x1p112f)) | sign);
#endif
}

INLINE v16f from_bfloat16(const uint8_t *p) {
    v16h half;
    memcpy(&half, p, sizeof half);
    return (v16f)(__builtin_convertvector(half, v16u) << 16);
}

INLINE float sum16(v16f x) {
    float s[LANES];
    store(s, x);
    for (int n = LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) s[i] += s[i + n];
    return s[0];
}

INLINE v16f max16(v16f a, v16f b) {
    v16i larger = a > b;
    return (v16f)(((v16i)a & larger) | ((v16i)b & ~larger));
}

INLINE v16f round16(v16f x) { // to the nearest whole number, of |x| < 2^22; ties to even
    v16f shift = splat(12582912.0f);
    return (x + shift) - shift;
}

INLINE v16f exp16(v16f x) { // relative error below 2e-7; x is at most 88
    x = max16(x, splat(-87.0f));
    v16f n = round16(x * 1.44269504f);
    v16f r = fma16(n, splat(-0.693145752f), x);
    r = fma16(n, splat(-1.42860677e-6f), r);
    v16f p = splat(1.0f / 5040);
    p = fma16(p, r, splat(1.0f / 720));
    p = fma16(p, r, splat(1.0f / 120));
    p = fma16(p, r, splat(1.0f / 24));
    p = fma16(p, r, splat(1.0f / 6));
    p = fma16(p, r, splat(0.5f));
    p = fma16(p, r, splat(1.0f));
    p = fma16(p, r, splat(1.0f));
    return p * (v16f)((__builtin_convertvector(n, v16i) + 127) << 23);
}

// Sums of products of 4 bytes in each lane: weights from 0 to 255, and 4 activations that all lanes share.
#if defined(__AVX512VNNI__)
#define OFFSET_IN_SUM 1
INLINE v16i dot4_offset(v16i sum, v64b w, int32_t a) {
    return (v16i)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, _mm512_set1_epi32(a));
}
#define dot4_small dot4_offset
#elif defined(__AVX2__)
#define OFFSET_IN_SUM 0
INLINE v16i dot4_offset(v16i sum, v64b w, int32_t a) { // the weights are 128 too large: so it takes 128 off
    union { v64b v; __m256i half[2]; } x = {w};
    union { v16i v; __m256i half[2]; } y = {sum};
    __m256i ones = _mm256_set1_epi16(1), activations = _mm256_set1_epi32(a);
    for (int i = 0; i < 2; i++) {
        __m256i weights = _mm256_xor_si256(x.half[i], _mm256_set1_epi8(-128));
        // |w| * (a with w's sign): two products of at most 128 * 127 fit 16 bits.
        __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(activations, weights));
        y.half[i] = _mm256_add_epi32(y.half[i], _mm256_madd_epi16(pairs, ones));
    }
    return y.v;
}
INLINE v16i dot4_small(v16i sum, v64b w, int32_t a) { // weights up to 15
    union { v64b v; __m256i half[2]; } x = {w};
    union { v16i v; __m256i half[2]; } y = {sum};
    for (int i = 0; i < 2; i++) {
        __m256i pairs = _mm256_maddubs_epi16(x.half[i], _mm256_set1_epi32(a));
        y.half[i] = _mm256_add_epi32(y.half[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    return y.v;
}
#else
#define OFFSET_IN_SUM 1
INLINE v16i dot4_offset(v16i sum, v64b w, int32_t a) {
    int8_t activations[4];
    memcpy(activations, &a, 4);
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < 4; j++) sum[i] += (int32_t)w[4 * i + j] * activations[j];
    return sum;
}
#define dot4_small dot4_offset
#endif

// Activations --------------------------------------------------------------------------------------------

// T tokens of n numbers: as they are, and rounded to blocks of 8 bits.
typedef struct {
    float *x;       // (T, n)
    int8_t *q;      // (T, n rounded up to 32)
    float *scale;   // (T, blocks)
    int32_t *sum;   // (T, blocks), of q
    int n, n_blocks;
} Tokens;

static void round_to_blocks(Tokens *tokens, int t) {
    const float *x = tokens->x + (size_t)t * tokens->n;
    for (int b = 0; b < tokens->n_blocks; b++) {
        v16f part[2];
        int left = tokens->n - b * BLOCK;
        if (left >= BLOCK) {
            part[0] = load(x + b * BLOCK), part[1] = load(x + b * BLOCK + LANES);
        } else {
            memset(part, 0, sizeof part);
            memcpy(part, x + b * BLOCK, sizeof(float) * left);
        }
        v16f size = max16(max16(part[0], -part[0]), max16(part[1], -part[1]));
        float largest = 0;
        for (int i = 0; i < LANES; i++) largest = size[i] > largest ? size[i] : largest;
        float scale = largest / 127, inverse = scale > 0 ? 1 / scale : 0;
        v16i whole[2];
        for (int i = 0; i < 2; i++) whole[i] = __builtin_convertvector(round16(part[i] * inverse), v16i);
        int8_t *q = tokens->q + ((size_t)t * tokens->n_blocks + b) * BLOCK;
        int32_t sum = 0;
        for (int i = 0; i < BLOCK; i++) {
            q[i] = (int8_t)whole[i / LANES][i % LANES];
            sum += q[i];
        }
        tokens->scale[(size_t)t * tokens->n_blocks + b] = scale;
        tokens->sum[(size_t)t * tokens->n_blocks + b] = sum;
    }
}

// Products: 16 rows by up to TILE tokens -------------------------------------------------------------

INLINE size_t group_header(const Matrix *m) {
    size_t n_blocks = rounded_up(m->n_cols, BLOCK) / BLOCK;
    return (n_blocks * LANES * (m->kind == Q4_1 ? 4 : 2) + 63) / 64 * 64;
}

INLINE size_t group_bytes(const Matrix *m) {
    size_t n_blocks = rounded_up(m->n_cols, BLOCK) / BLOCK;
    switch (m->kind) {
    case FLOAT32: return (size_t)m->n_cols * LANES * 4;
    case BFLOAT16:
    case FLOAT16: return (size_t)m->n_cols * LANES * 2;
    case Q8_0: return group_header(m) + n_blocks * LANES * BLOCK;
    default: return group_header(m) + n_blocks * LANES * BLOCK / 2;
    }
}

INLINE v16f inputs_of(int kind, const uint8_t *w, size_t k) { // weights of one input, 16 rows
    if (kind == FLOAT32) return load((const float *)w + k * LANES);
    return kind == FLOAT16 ? from_half(w + k * LANES * 2) : from_bfloat16(w + k * LANES * 2);
}

INLINE void float_rows(const Matrix *m, const uint8_t *w, const Tokens *in, int t0, int nt, int kind, v16f *y) {
    const size_t n = m->n_cols;
    v16f even[TILE] = {}, odd[TILE] = {};
    size_t k = 0;
    for (; k + 1 < n; k += 2) {
        v16f w0 = inputs_of(kind, w, k), w1 = inputs_of(kind, w, k + 1);
        for (int t = 0; t < nt; t++) {
            const float *x = in->x + (size_t)(t0 + t) * n + k;
            even[t] = fma16(w0, splat(x[0]), even[t]);
            odd[t] = fma16(w1, splat(x[1]), odd[t]);
        }
    }
    if (k < n) {
        v16f w0 = inputs_of(kind, w, k);
        for (int t = 0; t < nt; t++) even[t] = fma16(w0, splat(in->x[(size_t)(t0 + t) * n + k]), even[t]);
    }
    for (int t = 0; t < nt; t++) y[t] = even[t] + odd[t];
}

INLINE void block_rows(const Matrix *m, const uint8_t *group, const Tokens *in, int t0, int nt, int kind, v16f *y) {
    const int n_blocks = in->n_blocks;
    const uint8_t *scales = group, *w = group + group_header(m);
    for (int t = 0; t < nt; t++) y[t] = splat(0);
    for (int b = 0; b < n_blocks; b++) {
        v16f scale, least = {};
        if (kind == Q4_1) scale = from_half(scales + b * 64), least = from_half(scales + b * 64 + 32);
        else scale = from_half(scales + b * 32);
        v64b weights[GROUPS_OF_4];
        if (kind == Q8_0) {
            for (int g = 0; g < GROUPS_OF_4; g++) weights[g] = ((const v64b *)w)[g];
            w += LANES * BLOCK;
        } else {
            for (int g = 0; g < GROUPS_OF_4 / 2; g++) {
                v64b both = ((const v64b *)w)[g];
                weights[g] = both & 15;
                weights[g + GROUPS_OF_4 / 2] = (v64b)(((v16u)both >> 4) & 0x0f0f0f0f);
            }
            w += LANES * BLOCK / 2;
        }
        for (int t = 0; t < nt; t++) {
            const size_t at = (size_t)(t0 + t) * n_blocks + b;
            const int32_t *q = (const int32_t *)(in->q + at * BLOCK);
            int32_t offset = kind == Q8_0 ? (OFFSET_IN_SUM ? -128 * in->sum[at] : 0) : kind == Q4_0 ? -8 * in->sum[at] : 0;
            v16i first = splat_int(offset), second = {};
            for (int g = 0; g < GROUPS_OF_4; g += 2) {
                if (kind == Q8_0) {
                    first = dot4_offset(first, weights[g], q[g]);
                    second = dot4_offset(second, weights[g + 1], q[g + 1]);
                } else {
                    first = dot4_small(first, weights[g], q[g]);
                    second = dot4_small(second, weights[g + 1], q[g + 1]);
                }
            }
            y[t] = fma16(to_float(first + second), scale * splat(in->scale[at]), y[t]);
            if (kind == Q4_1) y[t] = fma16(least, splat(in->scale[at] * (float)in->sum[at]), y[t]);
        }
    }
}

INLINE void rows_by_tokens(const Matrix *m, const uint8_t *group, const Tokens *in, int t0, int nt, v16f *y) {
    switch (m->kind) {
    case FLOAT32: float_rows(m, group, in, t0, nt, FLOAT32, y); break;
    case BFLOAT16: float_rows(m, group, in, t0, nt, BFLOAT16, y); break;
    case FLOAT16: float_rows(m, group, in, t0, nt, FLOAT16, y); break;
    case Q8_0: block_rows(m, group, in, t0, nt, Q8_0, y); break;
    case Q4_0: block_rows(m, group, in, t0, nt, Q4_0, y); break;
    default: block_rows(m, group, in, t0, nt, Q4_1, y); break;
    }
}

// The rows 16 g, ..., 16 g + 15 of a matrix by nt tokens, with the bias.
static void group_by_tokens(const Matrix *m, int g, const Tokens *in, int t0, int nt, v16f *y) {
    const uint8_t *group = m->data + g * group_bytes(m);
    switch (nt) { // numbers that the compiler knows keep the sums in registers
    case 1: rows_by_tokens(m, group, in, t0, 1, y); break;
    case TILE: rows_by_tokens(m, group, in, t0, TILE, y); break;
    default: {
        int t = 0;
        for (; t + 4 <= nt; t += 4) rows_by_tokens(m, group, in, t0 + t, 4, y + t);
        for (; t < nt; t++) rows_by_tokens(m, group, in, t0 + t, 1, y + t);
    }
    }
    if (m->bias)
        for (int t = 0; t < nt; t++) y[t] += load(m->bias + g * LANES); // padded to 16
}

static void unpack_row(const Matrix *m, int row, float *out) {
    const uint8_t *group = m->data + row / LANES * group_bytes(m);
    const int lane = row % LANES;
    if (m->kind == FLOAT32 || m->kind == BFLOAT16 || m->kind == FLOAT16) {
        for (int k = 0; k < m->n_cols; k++) out[k] = inputs_of(m->kind, group, k)[lane];
        return;
    }
    const uint8_t *w = group + group_header(m);
    for (int k = 0; k < m->n_cols; k++) {
        int b = k / BLOCK, i = k % BLOCK, is_high = i >= BLOCK / 2;
        const uint8_t *scales = group + b * (m->kind == Q4_1 ? 64 : 32);
        float scale = from_half(scales)[lane];
        if (m->kind == Q8_0) {
            out[k] = scale * ((int)w[b * LANES * BLOCK + i / 4 * 64 + lane * 4 + i % 4] - 128);
            continue;
        }
        int byte = w[b * LANES * BLOCK / 2 + i % (BLOCK / 2) / 4 * 64 + lane * 4 + i % 4];
        int nibble = is_high ? byte >> 4 : byte & 15;
        out[k] = m->kind == Q4_0 ? scale * (nibble - 8) : scale * nibble + from_half(scales + 32)[lane];
    }
}

// Threads ------------------------------------------------------------------------------------------------

// All threads of a step run the same function. Work is handed out in small pieces by a counter for each
// phase, so that a thread that does not get a processor holds up one piece, not its share.

#define SPINS 2000

typedef struct Step Step;

typedef struct {
    int n_threads; // at most, the caller's included
    pthread_t *threads;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    Step *step;
    _Atomic int64_t n_steps; // a worker that sees a new number joins
    int n_wanted;            // threads of this step
    _Atomic int n_inside;    // workers that have not left it
    int is_over;
} Pool;

struct Step {
    const Model *model;
    const Cache *caches;
    int n_tokens, n_threads, n_logits;
    const int32_t *ids, *positions, *cache_of, *wanted; // (T,), (T,), (T,), (n_logits,)
    float *logits;                                      // (n_logits, V)
    Tokens stream, normed, gathered, hidden, last;
    float *queries, *keys, *values; // (T, H D), (T, G D), (T, G D)
    float *scores;                  // one row for each thread
    int max_len;
    _Atomic int *counters; // one for each phase
    _Atomic int n_arrived, n_rounds;
};

INLINE void pause_briefly(int spin) {
    if (spin > SPINS) {
        sched_yield();
        return;
    }
#if defined(__x86_64__)
    _mm_pause();
#endif
}

static void meet(Step *s) {
    if (s->n_threads == 1) return;
    int round = atomic_load_explicit(&s->n_rounds, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&s->n_arrived, 1, memory_order_acq_rel) == s->n_threads - 1) {
        atomic_store_explicit(&s->n_arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&s->n_rounds, round + 1, memory_order_release);
        return;
    }
    for (int spin = 0; atomic_load_explicit(&s->n_rounds, memory_order_acquire) == round; spin++) pause_briefly(spin);
}

// Take the next of n pieces of a phase, or return n or more.
INLINE int take(Step *s, int phase, int n_at_once) {
    return atomic_fetch_add_explicit(&s->counters[phase], n_at_once, memory_order_relaxed);
}

// A step --------------------------------------------------------------------------------------------------

static void normalize(const float *x, const float *weight, int n, float eps, float *y) {
    v16f squares = {};
    int i = 0;
    for (; i + LANES <= n; i += LANES) squares = fma16(load(x + i), load(x + i), squares);
    float sum = sum16(squares);
    for (; i < n; i++) sum += x[i] * x[i];
    float scale = 1 / sqrtf(sum / n + eps);
    for (i = 0; i < n; i++) y[i] = x[i] * scale * weight[i];
}

static void normalize_tokens(Step *s, int *phase, const float *weight, Tokens *out) {
    const Model *m = s->model;
    for (int t; (t = take(s, *phase, 1)) < s->n_tokens;) {
        normalize(s->stream.x + (size_t)t * m->d_model, weight, m->d_model, m->norm_eps, out->x + (size_t)t * m->d_model);
        round_to_blocks(out, t);
    }
    ++*phase;
    meet(s);
}

static int piece(const Step *s, int n_groups) {
    int n = n_groups / (8 * s->n_threads);
    return n < 1 ? 1 : n > 64 ? 64 : n;
}

// out (T, n_rows), or added to it, = matrices by tokens; the matrices' rows are handed out together.
static void multiply(Step *s, int *phase, const Matrix *const *matrices, float *const *out, int n, const Tokens *in, int adds) {
    int n_groups = 0;
    for (int i = 0; i < n; i++) n_groups += rounded_up(matrices[i]->n_rows, LANES) / LANES;
    const int at_once = piece(s, n_groups);
    for (int first; (first = take(s, *phase, at_once)) < n_groups;) {
        for (int g = first; g < first + at_once && g < n_groups; g++) {
            int i = 0, local = g;
            for (int size; local >= (size = rounded_up(matrices[i]->n_rows, LANES) / LANES); i++) local -= size;
            const int n_rows = matrices[i]->n_rows, left = n_rows - local * LANES;
            for (int t0 = 0; t0 < s->n_tokens; t0 += TILE) {
                v16f y[TILE];
                int nt = s->n_tokens - t0 < TILE ? s->n_tokens - t0 : TILE;
                group_by_tokens(matrices[i], local, in, t0, nt, y);
                for (int t = 0; t < nt; t++) {
                    float *to = out[i] + (size_t)(t0 + t) * n_rows + local * LANES;
                    if (left >= LANES) {
                        if (adds) y[t] += load(to);
                        store(to, y[t]);
                    } else {
                        for (int r = 0; r < left; r++) to[r] = adds ? to[r] + y[t][r] : y[t][r];
                    }
                }
            }
        }
    }
    ++*phase;
    meet(s);
}

static void rotate(float *x, const float *cos, const float *sin, int half) {
    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
    }
}

INLINE size_t value_width(const Model *m) { return rounded_up(m->head_dim, LANES); }

INLINE size_t head_offset(const Model *m, const Cache *c, int layer, int head, size_t width) {
    return ((size_t)layer * m->n_kv_heads + head) * c->max_len * width;
}

// Norms and rotations of the heads; keys and values go into the caches.
static void place_heads(Step *s, int *phase, int layer) {
    const Model *m = s->model;
    const Layer *l = &m->layers[layer];
    const int D = m->head_dim, half = D / 2;
    for (int t; (t = take(s, *phase, 1)) < s->n_tokens;) {
        const int position = s->positions[t];
        const Cache *c = &s->caches[s->cache_of[t]];
        const float *cos = m->cos + (size_t)position * half, *sin = m->sin + (size_t)position * half;
        for (int h = 0; h < m->n_heads; h++) {
            float *q = s->queries + ((size_t)t * m->n_heads + h) * D;
            if (l->query_norm) normalize(q, l->query_norm, D, m->norm_eps, q);
            rotate(q, cos, sin, half);
        }
        for (int g = 0; g < m->n_kv_heads; g++) {
            float *k = s->keys + ((size_t)t * m->n_kv_heads + g) * D;
            if (l->key_norm) normalize(k, l->key_norm, D, m->norm_eps, k);
            rotate(k, cos, sin, half);
            float *kept = c->keys + head_offset(m, c, layer, g, D) + (size_t)(position / LANES) * D * LANES;
            for (int i = 0; i < D; i++) kept[i * LANES + position % LANES] = k[i];
            float *value = c->values + head_offset(m, c, layer, g, value_width(m)) + position * value_width(m);
            memcpy(value, s->values + ((size_t)t * m->n_kv_heads + g) * D, sizeof(float) * D);
        }
    }
    ++*phase;
    meet(s);
}

static void attend(const Model *m, const Cache *c, int layer, int head, int position, const float *q, float *scores, float *out) {
    const int D = m->head_dim, kv_head = head / (m->n_heads / m->n_kv_heads);
    const float *keys = c->keys + head_offset(m, c, layer, kv_head, D);
    const float *values = c->values + head_offset(m, c, layer, kv_head, value_width(m));
    const int first = m->window && position + 1 > m->window ? position + 1 - m->window : 0;
    const float root = 1 / sqrtf((float)D);
    v16f highest = splat(-INFINITY);
    for (int b = first / LANES; b <= position / LANES; b++) {
        v16f part[2] = {};
        const float *k = keys + (size_t)b * D * LANES;
        for (int i = 0; i < D; i += 2) {
            part[0] = fma16(load(k + i * LANES), splat(q[i]), part[0]);
            part[1] = fma16(load(k + (i + 1) * LANES), splat(q[i + 1]), part[1]);
        }
        v16f score = (part[0] + part[1]) * root;
        for (int i = 0; i < LANES; i++) // what is not seen: before the window, or after the token
            if (b * LANES + i < first || b * LANES + i > position) score[i] = -INFINITY;
        store(scores + b * LANES, score);
        highest = max16(highest, score);
    }
    float best = -INFINITY;
    for (int i = 0; i < LANES; i++) best = highest[i] > best ? highest[i] : best;
    v16f sums = {};
    for (int b = first / LANES; b <= position / LANES; b++) {
        v16f score = load(scores + b * LANES), seen = exp16(score - best);
        v16i is_seen = score > splat(-INFINITY);
        seen = (v16f)((v16i)seen & is_seen);
        store(scores + b * LANES, seen);
        sums += seen;
    }
    const float inverse = 1 / sum16(sums);
    for (int i0 = 0; i0 < D; i0 += 4 * LANES) { // up to 64 numbers of the value at once
        v16f y[4] = {};
        const int n = (D - i0 + LANES - 1) / LANES < 4 ? (D - i0 + LANES - 1) / LANES : 4;
        for (int p = first; p <= position; p++) {
            v16f weight = splat(scores[p]);
            const float *v = values + p * value_width(m) + i0;
            if (n == 4)
                for (int i = 0; i < 4; i++) y[i] = fma16(weight, load(v + i * LANES), y[i]);
            else
                for (int i = 0; i < n; i++) y[i] = fma16(weight, load(v + i * LANES), y[i]);
        }
        for (int i = 0; i < n; i++)
            for (int j = 0; j < LANES && i0 + i * LANES + j < D; j++) out[i0 + i * LANES + j] = y[i][j] * inverse;
    }
}

static void attention(Step *s, int *phase, int layer, float *scores) {
    const Model *m = s->model;
    const int n_pieces = s->n_tokens * m->n_kv_heads, n_sharing = m->n_heads / m->n_kv_heads;
    for (int i; (i = take(s, *phase, 1)) < n_pieces;) {
        const int t = i % s->n_tokens;
        for (int j = 0; j < n_sharing; j++) {
            const int h = i / s->n_tokens * n_sharing + j;
            const size_t at = ((size_t)t * m->n_heads + h) * m->head_dim;
            attend(m, &s->caches[s->cache_of[t]], layer, h, s->positions[t], s->queries + at, scores, s->gathered.x + at);
        }
    }
    ++*phase;
    meet(s);
    for (int t; (t = take(s, *phase, 1)) < s->n_tokens;) round_to_blocks(&s->gathered, t);
    ++*phase;
    meet(s);
}

// hidden = silu(gate x) * (up x), 32 rows at a time, so that a block can be rounded at once.
static void gated(Step *s, int *phase, const Layer *l) {
    const int F = s->model->d_ff, n_pairs = rounded_up(F, BLOCK) / BLOCK;
    const int at_once = piece(s, n_pairs);
    for (int first; (first = take(s, *phase, at_once)) < n_pairs;) {
        for (int pair = first; pair < first + at_once && pair < n_pairs; pair++) {
            for (int g = 2 * pair; g < 2 * pair + 2 && g * LANES < F; g++) {
                for (int t0 = 0; t0 < s->n_tokens; t0 += TILE) {
                    v16f gate[TILE], up[TILE];
                    int nt = s->n_tokens - t0 < TILE ? s->n_tokens - t0 : TILE;
                    group_by_tokens(&l->gate, g, &s->normed, t0, nt, gate);
                    group_by_tokens(&l->up, g, &s->normed, t0, nt, up);
                    for (int t = 0; t < nt; t++) {
                        v16f y = gate[t] / (1 + exp16(-gate[t])) * up[t];
                        float *to = s->hidden.x + (size_t)(t0 + t) * F + g * LANES;
                        int left = F - g * LANES;
                        if (left >= LANES) store(to, y);
                        else memcpy(to, &y, sizeof(float) * left);
                    }
                }
            }
        }
    }
    ++*phase;
    meet(s);
    for (int t; (t = take(s, *phase, 1)) < s->n_tokens;) round_to_blocks(&s->hidden, t);
    ++*phase;
    meet(s);
}

static void run_step(Step *s, int thread) {
    const Model *m = s->model;
    float *scores = s->scores + (size_t)thread * s->max_len;
    int phase = 0;
    for (int t; (t = take(s, phase, 1)) < s->n_tokens;) unpack_row(&m->embedding, s->ids[t], s->stream.x + (size_t)t * m->d_model);
    phase++;
    meet(s);
    for (int i = 0; i < m->n_layers; i++) {
        const Layer *l = &m->layers[i];
        normalize_tokens(s, &phase, l->attention_norm, &s->normed);
        multiply(s, &phase, (const Matrix *[]){&l->query, &l->key, &l->value}, (float *[]){s->queries, s->keys, s->values}, 3, &s->normed, 0);
        place_heads(s, &phase, i);
        attention(s, &phase, i, scores);
        multiply(s, &phase, (const Matrix *[]){&l->output}, (float *[]){s->stream.x}, 1, &s->gathered, 1);
        normalize_tokens(s, &phase, l->mlp_norm, &s->normed);
        gated(s, &phase, l);
        multiply(s, &phase, (const Matrix *[]){&l->down}, (float *[]){s->stream.x}, 1, &s->hidden, 1);
    }
    for (int i; (i = take(s, phase, 1)) < s->n_logits;) {
        const float *x = s->stream.x + (size_t)s->wanted[i] * m->d_model;
        normalize(x, m->norm, m->d_model, m->norm_eps, s->last.x + (size_t)i * m->d_model);
        round_to_blocks(&s->last, i);
    }
    phase++;
    meet(s);
    const int n_groups = rounded_up(m->vocab_size, LANES) / LANES, at_once = piece(s, n_groups);
    for (int first; s->n_logits && (first = take(s, phase, at_once)) < n_groups;) {
        for (int g = first; g < first + at_once && g < n_groups; g++) {
            for (int t0 = 0; t0 < s->n_logits; t0 += TILE) {
                v16f y[TILE];
                int nt = s->n_logits - t0 < TILE ? s->n_logits - t0 : TILE;
                int left = m->vocab_size - g * LANES;
                group_by_tokens(&m->head, g, &s->last, t0, nt, y);
                for (int t = 0; t < nt; t++)
                    memcpy(s->logits + (size_t)(t0 + t) * m->vocab_size + g * LANES, &y[t], sizeof(float) * (left < LANES ? left : LANES));
            }
        }
    }
    meet(s);
}

static void *work(void *argument) {
    Pool *pool = argument;
    pthread_mutex_lock(&pool->mutex);
    int64_t n_seen = 0;
    int number = 0;
    for (int i = 0; i < pool->n_threads - 1; i++)
        if (pthread_equal(pool->threads[i], pthread_self())) number = i + 1;
    pthread_mutex_unlock(&pool->mutex);
    for (;;) {
        // The next token usually comes soon: sleeping and waking would cost more than waiting.
        for (int spin = 0; spin < SPINS && atomic_load_explicit(&pool->n_steps, memory_order_acquire) == n_seen; spin++) pause_briefly(0);
        pthread_mutex_lock(&pool->mutex);
        while (pool->n_steps == n_seen && !pool->is_over) pthread_cond_wait(&pool->wake, &pool->mutex);
        n_seen = pool->n_steps;
        Step *step = pool->step;
        int joins = number < pool->n_wanted, is_over = pool->is_over;
        pthread_mutex_unlock(&pool->mutex);
        if (is_over) return NULL;
        if (!joins) continue;
        run_step(step, number);
        atomic_fetch_sub_explicit(&pool->n_inside, 1, memory_order_release);
    }
}

Pool *techtree_new_pool(int n_threads) {
    Pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NULL;
    pool->threads = calloc(n_threads, sizeof *pool->threads);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_mutex_lock(&pool->mutex); // a worker looks its number up when all are known
    pool->n_threads = 1;
    for (int i = 1; pool->threads && i < n_threads; i++) {
        if (pthread_create(&pool->threads[i - 1], NULL, work, pool)) break;
        pool->n_threads++;
    }
    pthread_mutex_unlock(&pool->mutex);
    return pool;
}

void techtree_free_pool(Pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    pool->is_over = 1;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->n_threads - 1; i++) pthread_join(pool->threads[i], NULL);
    pthread_mutex_destroy(&pool->mutex);
    pthread_cond_destroy(&pool->wake);
    free(pool->threads);
    free(pool);
}

static void run_on(Pool *pool, Step *step) {
    if (step->n_threads > pool->n_threads) step->n_threads = pool->n_threads;
    if (step->n_threads > 1) {
        pthread_mutex_lock(&pool->mutex);
        pool->step = step;
        pool->n_wanted = step->n_threads;
        atomic_store(&pool->n_inside, step->n_threads - 1);
        atomic_fetch_add(&pool->n_steps, 1);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->mutex);
    }
    run_step(step, 0);
    if (step->n_threads > 1)
        for (int spin = 0; atomic_load_explicit(&pool->n_inside, memory_order_acquire); spin++) pause_briefly(spin);
}

// Memory of a step: everything in one piece.
typedef struct {
    uint8_t *next;
    size_t n_bytes;
} Room;

static void *part(Room *room, size_t n_bytes) {
    void *at = room->next ? room->next + room->n_bytes : NULL;
    room->n_bytes += (n_bytes + 63) / 64 * 64;
    return at;
}

static Tokens tokens_of(Room *room, size_t n_tokens, size_t n) {
    const size_t n_blocks = rounded_up((int)n, BLOCK) / BLOCK;
    Tokens tokens = {.n = (int)n, .n_blocks = (int)n_blocks};
    tokens.x = part(room, n_tokens * n * sizeof(float));
    tokens.q = part(room, n_tokens * n_blocks * BLOCK);
    tokens.scale = part(room, n_tokens * n_blocks * sizeof(float));
    tokens.sum = part(room, n_tokens * n_blocks * sizeof(int32_t));
    return tokens;
}

static void lay_out(Step *s, Room *room) {
    const Model *m = s->model;
    const size_t T = s->n_tokens, D = m->head_dim;
    s->stream = tokens_of(room, T, m->d_model);
    s->normed = tokens_of(room, T, m->d_model);
    s->gathered = tokens_of(room, T, m->n_heads * D);
    s->hidden = tokens_of(room, T, m->d_ff);
    s->last = tokens_of(room, s->n_logits, m->d_model);
    s->queries = part(room, T * m->n_heads * D * sizeof(float));
    s->keys = part(room, T * m->n_kv_heads * D * sizeof(float));
    s->values = part(room, T * m->n_kv_heads * D * sizeof(float));
    s->scores = part(room, (size_t)s->n_threads * s->max_len * sizeof(float));
    s->counters = part(room, (10 * (size_t)m->n_layers + 3) * sizeof(_Atomic int));
}

// Run tokens: token t of ids is put at a position of one of the caches, whose earlier positions are filled or
// filled by this call. Give the logits of those tokens whose indices are wanted. Returns 0, or 1 without memory.
int techtree_run(
    Pool *pool, const Model *model, const Cache *caches, int n_tokens, const int32_t *ids, const int32_t *positions,
    const int32_t *cache_of, int n_logits, const int32_t *wanted, float *logits, int n_threads) {
    Step step = {
        .model = model, .caches = caches, .n_tokens = n_tokens, .n_threads = n_threads, .n_logits = n_logits,
        .ids = ids, .positions = positions, .cache_of = cache_of, .wanted = wanted, .logits = logits};
    for (int t = 0; t < n_tokens; t++)
        if (caches[cache_of[t]].max_len > step.max_len) step.max_len = caches[cache_of[t]].max_len;
    Room room = {};
    lay_out(&step, &room);
    void *memory = NULL;
    if (posix_memalign(&memory, 64, room.n_bytes)) return 1;
    room = (Room){.next = memory};
    lay_out(&step, &room);
    memset((void *)step.counters, 0, (10 * (size_t)model->n_layers + 3) * sizeof(_Atomic int));
    run_on(pool, &step);
    free(memory);
    return 0;
}

// Packing --------------------------------------------------------------------------------------------------

size_t techtree_packed_bytes(int kind, int n_rows, int n_cols) {
    Matrix m = {.kind = kind, .n_rows = n_rows, .n_cols = n_cols};
    return group_bytes(&m) * (rounded_up(n_rows, LANES) / LANES);
}

// Rows as a GGUF file has them, from a multiple of 16 on; the rows of `out` are those of the whole matrix.
void techtree_pack(int kind, int n_rows, int n_cols, int first, int n, const uint8_t *rows, uint8_t *out) {
    Matrix m = {.kind = kind, .n_rows = n_rows, .n_cols = n_cols};
    const size_t n_blocks = rounded_up(n_cols, BLOCK) / BLOCK;
    const size_t item = kind == FLOAT32 ? 4 : 2;
    const size_t header = kind == Q4_1 ? 4 : 2, block_bytes = header + (kind == Q8_0 ? BLOCK : BLOCK / 2);
    for (int r = 0; r < n; r++) {
        uint8_t *group = out + (size_t)(first + r) / LANES * group_bytes(&m);
        const int lane = (first + r) % LANES;
        if (kind == FLOAT32 || kind == BFLOAT16 || kind == FLOAT16) {
            for (int k = 0; k < n_cols; k++) memcpy(group + (k * LANES + lane) * item, rows + ((size_t)r * n_cols + k) * item, item);
            continue;
        }
        uint8_t *w = group + group_header(&m);
        for (size_t b = 0; b < n_blocks; b++) {
            const uint8_t *block = rows + ((size_t)r * n_blocks + b) * block_bytes;
            for (size_t i = 0; i < header / 2; i++) memcpy(group + b * header * LANES + i * 32 + lane * 2, block + i * 2, 2);
            const size_t n_bytes = block_bytes - header;
            for (size_t i = 0; i < n_bytes; i++)
                w[b * LANES * n_bytes + i / 4 * 64 + lane * 4 + i % 4] = block[header + i] ^ (kind == Q8_0 ? 128 : 0);
        }
    }
}

// Other kinds of a GGUF file, as blocks of 8 bits --------------------------------------------------------------

enum { Q5_0 = 6, Q5_1 = 7, Q4_K = 12, Q5_K = 13, Q6_K = 14 }; // their numbers in a file

static float half_at(const uint8_t *p) {
    uint16_t half;
    memcpy(&half, p, 2);
    if ((half & 0x7c00) == 0x7c00) return NAN; // or infinite, which no weight is either
    uint32_t bits = (half & 0x7fff) << 13;
    float magnitude;
    memcpy(&magnitude, &bits, 4);
    magnitude *= 0x1p112f;
    return half & 0x8000 ? -magnitude : magnitude;
}

static void five_bits(const uint8_t *block, int has_least, float *y) {
    const float scale = half_at(block), least = has_least ? half_at(block + 2) : 0;
    const uint8_t *fifth = block + (has_least ? 4 : 2), *halves = fifth + 4;
    uint32_t fifths;
    memcpy(&fifths, fifth, 4);
    for (int i = 0; i < BLOCK / 2; i++) {
        int low = (halves[i] & 15) | (fifths >> i & 1) << 4, high = halves[i] >> 4 | (fifths >> (i + 16) & 1) << 4;
        y[i] = has_least ? scale * low + least : scale * (low - 16);
        y[i + BLOCK / 2] = has_least ? scale * high + least : scale * (high - 16);
    }
}

// 256 weights in 8 blocks, whose scales and least values have 6 bits each in 12 bytes.
static void four_or_five_bits_in_256(const uint8_t *block, int has_fifth, float *y) {
    const float scale = half_at(block), least = half_at(block + 2);
    const uint8_t *six = block + 4, *fifth = block + 16, *halves = block + (has_fifth ? 48 : 16);
    for (int b = 0; b < 8; b++) {
        int s = b < 4 ? six[b] & 63 : (six[b + 4] & 15) | six[b - 4] >> 6 << 4;
        int m = b < 4 ? six[b + 4] & 63 : six[b + 4] >> 4 | six[b] >> 6 << 4;
        for (int i = 0; i < BLOCK; i++) {
            int byte = halves[b / 2 * BLOCK + i], q = b % 2 ? byte >> 4 : byte & 15;
            if (has_fifth) q |= (fifth[i] >> b & 1) << 4;
            y[b * BLOCK + i] = scale * s * q - least * m;
        }
    }
}

static void six_bits_in_256(const uint8_t *block, float *y) {
    const float scale = half_at(block + 208);
    for (int i = 0; i < 256; i++) {
        int part = i / 128, quarter = i % 128 / 32, j = i % 32;
        int byte = block[part * 64 + quarter % 2 * 32 + j], low = quarter < 2 ? byte & 15 : byte >> 4;
        int q = (low | (block[128 + part * 32 + j] >> 2 * quarter & 3) << 4) - 32;
        y[i] = scale * (int8_t)block[192 + i / 16] * q;
    }
}

static uint16_t half_of(float x) { // nearest, ties to even; infinite from 65520 on
    if (fabsf(x) >= 65520) return x < 0 ? 0xfc00 : 0x7c00;
    const uint32_t sign = x < 0 ? 0x8000 : 0;
    const float size = fabsf(x);
    if (size < 0x1p-14f) return sign | (uint16_t)rintf(size * 0x1p24f);
    uint32_t bits;
    memcpy(&bits, &size, 4);
    bits += 0xfff + (bits >> 13 & 1);
    return sign | (uint16_t)((bits >> 13) - (112 << 10));
}

// Blocks of 32 weights from blocks of another kind; n is their number of weights. Returns 1 for a scale that is no number
// of half precision, 2 for an unknown kind.
int techtree_to_q8_0(int kind, int64_t n, const uint8_t *from, uint8_t *to) {
    const int is_small = kind == Q5_0 || kind == Q5_1, step = is_small ? BLOCK : 256;
    const int n_bytes = kind == Q5_0 ? 22 : kind == Q5_1 ? 24 : kind == Q4_K ? 144 : kind == Q5_K ? 176 : 210;
    if (!is_small && (kind < Q4_K || kind > Q6_K)) return 2;
    for (int64_t at = 0; at < n; at += step, from += n_bytes) {
        float y[256];
        if (is_small) five_bits(from, kind == Q5_1, y);
        else if (kind == Q6_K) six_bits_in_256(from, y);
        else four_or_five_bits_in_256(from, kind == Q5_K, y);
        for (int b = 0; b < step; b += BLOCK, to += 2 + BLOCK) {
            float largest = 0;
            for (int i = 0; i < BLOCK; i++) largest = fabsf(y[b + i]) > largest ? fabsf(y[b + i]) : largest;
            const float scale = largest / 127, inverse = scale > 0 ? 1 / scale : 0;
            if (!(scale <= 65504)) return 1; // also NaN, which only a scale can be, or its sum
            int is_number = 1;
            for (int i = 0; i < BLOCK; i++) is_number &= y[b + i] == y[b + i];
            if (!is_number) return 1;
            const uint16_t half = half_of(scale);
            memcpy(to, &half, 2);
            // To the nearest, halves away from zero: the largest number below a half does not carry 0.49999997 over.
            for (int i = 0; i < BLOCK; i++) {
                float exact = y[b + i] * inverse;
                to[2 + i] = (uint8_t)(int8_t)(exact + (exact < 0 ? -0x1.fffffep-2f : 0x1.fffffep-2f));
            }
        }
    }
    return 0;
}

// Blocks of 32 weights, rounded to what Q8_0 or Q4_0 would give back; NaN where one is no number.
void techtree_round(int kind, int64_t n_blocks, const float *from, float *to) {
    for (int64_t b = 0; b < n_blocks; b++, from += BLOCK, to += BLOCK) {
        float size = 0, largest = 0;
        int is_number = 1;
        for (int i = 0; i < BLOCK; i++) is_number &= fabsf(from[i]) <= 3.4028235e38f;
        for (int i = 0; i < BLOCK; i++) size = fabsf(from[i]) > size ? fabsf(from[i]) : size;
        for (int i = BLOCK - 1; i >= 0; i--) // the first of equal ones counts
            if (fabsf(from[i]) == size) largest = from[i];
        const float scale = kind == Q8_0 ? size / 127 : largest / -8, inverse = scale != 0 ? 1 / scale : 0;
        const float kept = is_number ? half_at((const uint8_t *)&(uint16_t){half_of(scale)}) : NAN;
        for (int i = 0; i < BLOCK; i++) {
            float exact = from[i] * inverse;
            if (kind == Q8_0) {
                to[i] = kept * (float)(int)(exact + (exact < 0 ? -0x1.fffffep-2f : 0x1.fffffep-2f));
            } else {
                int q = (int)(exact + 8.5f); // from 0.5 on
                to[i] = kept * (float)((q > 15 ? 15 : q) - 8);
            }
        }
    }
}
