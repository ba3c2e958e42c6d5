// One token of one row through a network of the LLaMA family: what palate/nn computes, for a single position.
//
// Such a step is a few hundred thousand multiplications a layer, and each of torch's operations costs as much as many
// of them, compiled or not (docs/log.md). Here it is one call. Weights are bfloat16 (-DBFLOAT16) or float32 and read
// where torch holds them; everything else is float32.

#include <cmath>
#include <cstdint>

#ifdef BFLOAT16
typedef uint16_t weight;  // the upper half of a float
static inline float number(weight w) {
  union { uint32_t bits; float number; } whole = {uint32_t(w) << 16};
  return whole.number;
}
#else
typedef float weight;
static inline float number(weight w) { return w; }
#endif

struct Layer {  // pointers only, in the order of palate/generate/alone.py; 0 where a network has no such part
  const float *norm_attention;
  const weight *qkv;
  const float *qkv_bias, *query_norm, *key_norm;
  const weight *out;
  const float *out_bias, *norm_feed_forward;
  const weight *up;
  const float *up_bias;
  const weight *down;
  const float *down_bias;
  float *keys, *values;  // (kv_heads, room, head_dim)
};

struct Sizes {
  int64_t layers, dim, heads, kv_heads, head_dim, hidden, vocab, room, window, threads;
};

struct Rest {
  const weight *embed;
  const float *norm;
  const weight *head;
  const float *cos, *sin;  // (positions, head_dim / 2)
  float *x, *normed, *qkv, *mixed, *wide, *scores;  // room to work in
};

// y (rows) = w (rows, columns) x + bias; added to what y holds if `add`.
static void product(float *__restrict y, const weight *__restrict w, const float *bias, const float *__restrict x,
                    int64_t rows, int64_t columns, bool add, int threads) {
  // Starting threads costs two microseconds, in which one core multiplies about so many numbers.
#pragma omp parallel for num_threads(threads) if (rows * columns > 32768)
  for (int64_t row = 0; row < rows; row += 4) {
    // Four sums that do not wait for each other; the last of them again where four do not fit.
    const int64_t last = rows - 1;
    const weight *w0 = w + row * columns, *w1 = w + (row + 1 < last ? row + 1 : last) * columns,
                 *w2 = w + (row + 2 < last ? row + 2 : last) * columns,
                 *w3 = w + (row + 3 < last ? row + 3 : last) * columns;
    float sum[4] = {0, 0, 0, 0};
    for (int64_t i = 0; i < columns; i++) {
      sum[0] += number(w0[i]) * x[i];
      sum[1] += number(w1[i]) * x[i];
      sum[2] += number(w2[i]) * x[i];
      sum[3] += number(w3[i]) * x[i];
    }
    for (int64_t k = 0; k < 4 && row + k < rows; k++)
      y[row + k] = sum[k] + (bias ? bias[row + k] : 0) + (add ? y[row + k] : 0);
  }
}

// RMSNorm; y may be x.
static void norm(float *y, const float *x, const float *scale, int64_t n, float eps) {
  float squares = 0;
  for (int64_t i = 0; i < n; i++) squares += x[i] * x[i];
  const float by = 1 / std::sqrt(squares / n + eps);
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * by * scale[i];
}

// One head turned by its position: (a, b) becomes (a cos - b sin, b cos + a sin).
static void turn(float *x, const float *cos, const float *sin, int64_t half) {
  for (int64_t i = 0; i < half; i++) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cos[i] - b * sin[i];
    x[i + half] = b * cos[i] + a * sin[i];
  }
}

// softmax(q k / sqrt(n)) v of one head over positions first to last.
static void attend(float *__restrict mixed, float *__restrict scores, const float *q, const float *__restrict keys,
                   const float *__restrict values, int64_t first, int64_t last, int64_t n) {
  const float scale = 1 / std::sqrt(float(n));
  float most = -INFINITY, total = 0;
  for (int64_t t = first; t <= last; t++) {
    float score = 0;
    for (int64_t i = 0; i < n; i++) score += q[i] * keys[t * n + i];
    scores[t] = score * scale;
    most = scores[t] > most ? scores[t] : most;
  }
  for (int64_t i = 0; i < n; i++) mixed[i] = 0;
  for (int64_t t = first; t <= last; t++) {
    const float share = std::exp(scores[t] - most);
    total += share;
    for (int64_t i = 0; i < n; i++) mixed[i] += share * values[t * n + i];
  }
  for (int64_t i = 0; i < n; i++) mixed[i] /= total;
}

extern "C" void step(const Sizes *size, const Layer *layers, const Rest *rest, float eps, int64_t token,
                     int64_t position, float *logits) {
  const int64_t dim = size->dim, n = size->head_dim, heads = size->heads, kv = size->kv_heads, hidden = size->hidden;
  const int64_t first = position - size->window + 1 > 0 ? position - size->window + 1 : 0;
  const int threads = int(size->threads);
  float *x = rest->x, *normed = rest->normed, *qkv = rest->qkv, *wide = rest->wide;
  for (int64_t i = 0; i < dim; i++) x[i] = number(rest->embed[token * dim + i]);

  for (const Layer *layer = layers; layer < layers + size->layers; layer++) {
    norm(normed, x, layer->norm_attention, dim, eps);
    product(qkv, layer->qkv, layer->qkv_bias, normed, (heads + 2 * kv) * n, dim, false, threads);
    for (int64_t head = 0; head < heads + kv; head++) {  // queries, then keys
      const float *scale = head < heads ? layer->query_norm : layer->key_norm;
      if (scale) norm(qkv + head * n, qkv + head * n, scale, n, eps);
      turn(qkv + head * n, rest->cos + position * n / 2, rest->sin + position * n / 2, n / 2);
    }
    for (int64_t head = 0; head < kv; head++)
      for (int64_t i = 0; i < n; i++) {
        layer->keys[(head * size->room + position) * n + i] = qkv[(heads + head) * n + i];
        layer->values[(head * size->room + position) * n + i] = qkv[(heads + kv + head) * n + i];
      }
#pragma omp parallel for num_threads(threads) if (heads * n * (position - first) > 16384)
    for (int64_t head = 0; head < heads; head++) {
      const int64_t shared = head / (heads / kv) * size->room * n;
      attend(rest->mixed + head * n, rest->scores + head * size->room, qkv + head * n, layer->keys + shared,
             layer->values + shared, first, position, n);
    }
    product(x, layer->out, layer->out_bias, rest->mixed, dim, heads * n, true, threads);

    norm(normed, x, layer->norm_feed_forward, dim, eps);
    product(wide, layer->up, layer->up_bias, normed, 2 * hidden, dim, false, threads);
    for (int64_t i = 0; i < hidden; i++) wide[i] *= wide[hidden + i] / (1 + std::exp(-wide[i]));
    product(x, layer->down, layer->down_bias, wide, dim, hidden, true, threads);
  }
  norm(normed, x, rest->norm, dim, eps);
  product(logits, rest->head, nullptr, normed, size->vocab, dim, false, threads);
}
