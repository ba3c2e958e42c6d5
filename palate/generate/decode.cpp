// Decoding on CPUs: what palate/nn computes for one new position of every row.
//
// Such a step is little arithmetic in many operations, and torch's cost more than what they compute: of a row alone all
// of them (`step`), of many rows those around the products with weights. Matrices, keys and
// values are bfloat16 or float32 and read where torch holds them; everything else is float32. docs/log.md has figures.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

struct bfloat16 {
  uint16_t upper;  // half of a float
};

static inline float number(float x) { return x; }
static inline float number(bfloat16 x) {
  const uint32_t bits = uint32_t(x.upper) << 16;
  float whole;
  std::memcpy(&whole, &bits, 4);
  return whole;
}
static inline void put(float &to, float x) { to = x; }
static inline void put(bfloat16 &to, float x) {  // to the nearest, halves to even
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  to.upper = uint16_t(x != x ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// e^x to 2 units in the last place for x from -87 to 88, where it is a normal number, and what it is there beyond. The
// library's takes one number at a time. x = k log 2 + rest, and the rest by its series.
static inline float exponential(float x) {
  const float low = x < -87 ? -87 : x > 88 ? 88 : x, k = std::floor(low * 1.44269504f + 0.5f);
  const float rest = low - k * 0.693359375f + k * 2.12194440e-4f;  // log 2 in two parts: the first times k is exact
  float sum = 1.f / 5040;
  sum = sum * rest + 1.f / 720;
  sum = sum * rest + 1.f / 120;
  sum = sum * rest + 1.f / 24;
  sum = sum * rest + 1.f / 6;
  sum = sum * rest + 0.5f;
  sum = sum * rest + 1;
  sum = sum * rest + 1;
  const int32_t bits = (int32_t(k) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return sum * power;
}

struct Sizes {
  int64_t layers, dim, heads, kv_heads, head_dim, hidden, vocab, room, window, threads;
  double eps;
};

struct Layer {  // pointers only, in the order of palate/generate/compiled.py; 0 where a network has no such part
  const float *norm_attention;
  const void *qkv;
  const float *qkv_bias, *query_norm, *key_norm;
  const void *out;
  const float *out_bias, *norm_feed_forward;
  const void *up;
  const float *up_bias;
  const void *down;
  const float *down_bias;
  void *keys, *values;  // (rows, kv_heads, room, head_dim)
};

struct Rest {
  const void *embed;
  const float *norm;
  const void *head;
  const float *cos, *sin;                  // (positions, head_dim / 2)
  float *x, *normed, *qkv, *mixed, *wide;  // of a row alone, to work in
};

// Sums of four rows of a matrix times x, which do not wait for each other.
template <typename W>
static inline void four(float *sums, const W *w, const float *x, int64_t columns) {
  const W *w1 = w + columns, *w2 = w1 + columns, *w3 = w2 + columns;
  float a = 0, b = 0, c = 0, d = 0;
  for (int64_t i = 0; i < columns; i++) {
    a += number(w[i]) * x[i];
    b += number(w1[i]) * x[i];
    c += number(w2[i]) * x[i];
    d += number(w3[i]) * x[i];
  }
  sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
}

template <typename W>
static inline float one(const W *w, const float *x, int64_t columns) {
  float sum = 0;
  for (int64_t i = 0; i < columns; i++) sum += number(w[i]) * x[i];
  return sum;
}

// y (rows) = w (rows, columns) x + bias; added to what y holds if `add`.
template <typename W>
static void product(float *__restrict y, const void *matrix, const float *bias, const float *__restrict x, int64_t rows,
                    int64_t columns, bool add, int threads) {
  const W *__restrict w = static_cast<const W *>(matrix);
  // Starting threads costs two microseconds, in which one core multiplies about so many numbers.
#pragma omp parallel for num_threads(threads) if (rows * columns > 32768)
  for (int64_t row = 0; row < rows; row += 4) {
    float sums[4];
    const int64_t count = rows - row < 4 ? rows - row : 4;
    if (count == 4)
      four(sums, w + row * columns, x, columns);
    else
      for (int64_t k = 0; k < count; k++) sums[k] = one(w + (row + k) * columns, x, columns);
    for (int64_t k = 0; k < count; k++) y[row + k] = sums[k] + (bias ? bias[row + k] : 0) + (add ? y[row + k] : 0);
  }
}

// RMSNorm of n numbers; y may be x.
template <typename W>
static inline void norm(W *y, const float *x, const float *scale, int64_t n, float eps) {
  float squares = 0;
  for (int64_t i = 0; i < n; i++) squares += x[i] * x[i];
  const float by = 1 / std::sqrt(squares / n + eps);
  for (int64_t i = 0; i < n; i++) put(y[i], x[i] * by * scale[i]);
}

// One head as it is compared: normalised if the network does so, and turned by its position, (a, b) becoming
// (a cos - b sin, b cos + a sin).
template <typename Q>
static inline void turned(float *__restrict to, const Q *from, const float *scale, const float *cos, const float *sin,
                          int64_t n, float eps) {
  for (int64_t i = 0; i < n; i++) to[i] = number(from[i]);
  if (scale) norm(to, to, scale, n, eps);
  for (int64_t i = 0; i < n / 2; i++) {
    const float a = to[i], b = to[i + n / 2];
    to[i] = a * cos[i] - b * sin[i];
    to[i + n / 2] = b * cos[i] + a * sin[i];
  }
}

// softmax(q k / sqrt(n)) v of one head over `count` positions.
template <typename C>
static inline void attend(float *__restrict mixed, float *__restrict scores, const float *__restrict q,
                          const C *__restrict keys, const C *__restrict values, int64_t count, int64_t n) {
  int64_t t = 0;
  for (; t + 4 <= count; t += 4) four(scores + t, keys + t * n, q, n);
  for (; t < count; t++) scores[t] = one(keys + t * n, q, n);
  const float scale = 1 / std::sqrt(float(n));
  float most = scores[0], total = 0;
  for (t = 1; t < count; t++) most = scores[t] > most ? scores[t] : most;
  for (t = 0; t < count; t++) {
    scores[t] = exponential((scores[t] - most) * scale);
    total += scores[t];
  }
  for (int64_t i = 0; i < n; i++) mixed[i] = 0;
  for (t = 0; t + 4 <= count; t += 4) {
    const C *v = values + t * n, *v1 = v + n, *v2 = v1 + n, *v3 = v2 + n;
    const float s = scores[t], s1 = scores[t + 1], s2 = scores[t + 2], s3 = scores[t + 3];
    for (int64_t i = 0; i < n; i++)
      mixed[i] += s * number(v[i]) + s1 * number(v1[i]) + s2 * number(v2[i]) + s3 * number(v3[i]);
  }
  for (; t < count; t++)
    for (int64_t i = 0; i < n; i++) mixed[i] += scores[t] * number(values[t * n + i]);
  for (int64_t i = 0; i < n; i++) mixed[i] /= total;
}

// Attention of each row's new position, after its key and value were stored: qkv (rows, heads + 2 kv_heads, head_dim)
// as the product gave it, mixed (rows, heads, head_dim).
template <typename Q, typename C>
static void attend_rows(const Sizes *size, const Layer *layer, const Rest *rest, int64_t rows, const int64_t *positions,
                        const Q *qkv, Q *mixed) {
  const int64_t n = size->head_dim, heads = size->heads, kv = size->kv_heads, room = size->room, share = heads / kv;
#pragma omp parallel num_threads(int(size->threads)) if (rows > 1 || heads * n * positions[0] > 32768)
  {
    std::vector<float> work(2 * n + room);
    float *head = work.data(), *sum = head + n, *scores = sum + n;
#pragma omp for
    for (int64_t unit = 0; unit < rows * kv; unit++) {  // a key-value head of a row, with the queries that share it
      const int64_t row = unit / kv, own = unit % kv, position = positions[row];
      const int64_t first = position - size->window + 1 > 0 ? position - size->window + 1 : 0;
      const float *cos = rest->cos + position * n / 2, *sin = rest->sin + position * n / 2;
      const Q *query = qkv + (row * (heads + 2 * kv) + own * share) * n;
      const Q *key = qkv + (row * (heads + 2 * kv) + heads + own) * n, *value = key + kv * n;
      C *keys = static_cast<C *>(layer->keys) + unit * room * n;
      C *values = static_cast<C *>(layer->values) + unit * room * n;
      turned(head, key, layer->key_norm, cos, sin, n, float(size->eps));
      for (int64_t i = 0; i < n; i++) put(keys[position * n + i], head[i]);
      for (int64_t i = 0; i < n; i++) put(values[position * n + i], number(value[i]));
      for (int64_t q = 0; q < share; q++) {
        turned(head, query + q * n, layer->query_norm, cos, sin, n, float(size->eps));
        attend(sum, scores, head, keys + first * n, values + first * n, position + 1 - first, n);
        for (int64_t i = 0; i < n; i++) put(mixed[(row * heads + own * share + q) * n + i], sum[i]);
      }
    }
  }
}

// y = RMSNorm(x + added), row by row; x (rows, dim) keeps the sum. `added` may be 0.
template <typename W>
static void norm_rows(int64_t rows, int64_t dim, float eps, int64_t threads, float *x, const W *added,
                      const float *scale, W *y) {
#pragma omp parallel for num_threads(int(threads)) if (rows * dim > 16384)
  for (int64_t row = 0; row < rows; row++) {
    float *own = x + row * dim;
    if (added)
      for (int64_t i = 0; i < dim; i++) own[i] += number(added[row * dim + i]);
    norm(y + row * dim, own, scale, dim, eps);
  }
}

// to (rows, hidden) = silu(gate) * up of wide (rows, 2 hidden).
template <typename W>
static void gate_rows(int64_t rows, int64_t hidden, int64_t threads, const W *wide, W *to) {
#pragma omp parallel for num_threads(int(threads)) if (rows * hidden > 16384)
  for (int64_t row = 0; row < rows; row++) {
    const W *gate = wide + row * 2 * hidden, *up = gate + hidden;
    for (int64_t i = 0; i < hidden; i++) {
      const float x = number(gate[i]);
      put(to[row * hidden + i], x / (1 + exponential(-x)) * number(up[i]));
    }
  }
}

// All of a step of one row: logits (vocab) after `token` at `position`.
template <typename W>
static void step(const Sizes *size, const Layer *layers, const Rest *rest, int64_t token, int64_t position,
                 float *logits) {
  const int64_t dim = size->dim, n = size->head_dim, heads = size->heads, kv = size->kv_heads, hidden = size->hidden;
  const int threads = int(size->threads);
  const float eps = float(size->eps);
  float *x = rest->x, *normed = rest->normed, *wide = rest->wide;
  for (int64_t i = 0; i < dim; i++) x[i] = number(static_cast<const W *>(rest->embed)[token * dim + i]);
  for (const Layer *layer = layers; layer < layers + size->layers; layer++) {
    norm(normed, x, layer->norm_attention, dim, eps);
    product<W>(rest->qkv, layer->qkv, layer->qkv_bias, normed, (heads + 2 * kv) * n, dim, false, threads);
    attend_rows<float, float>(size, layer, rest, 1, &position, rest->qkv, rest->mixed);
    product<W>(x, layer->out, layer->out_bias, rest->mixed, dim, heads * n, true, threads);
    norm(normed, x, layer->norm_feed_forward, dim, eps);
    product<W>(wide, layer->up, layer->up_bias, normed, 2 * hidden, dim, false, threads);
    for (int64_t i = 0; i < hidden; i++) wide[i] *= wide[hidden + i] / (1 + exponential(-wide[i]));
    product<W>(x, layer->down, layer->down_bias, wide, dim, hidden, true, threads);
  }
  norm(normed, x, rest->norm, dim, eps);
  product<W>(logits, rest->head, nullptr, normed, size->vocab, dim, false, threads);
}

// What palate/generate/compiled.py calls, by the dtype of the matrices and of keys and values.
extern "C" {
void step_float32(const Sizes *size, const Layer *layers, const Rest *rest, int64_t token, int64_t position, float *to) {
  step<float>(size, layers, rest, token, position, to);
}
void step_bfloat16(const Sizes *size, const Layer *layers, const Rest *rest, int64_t token, int64_t position, float *to) {
  step<bfloat16>(size, layers, rest, token, position, to);
}
void attend_float32_float32(const Sizes *size, const Layer *layer, const Rest *rest, int64_t rows, const int64_t *at,
                            const float *qkv, float *mixed) {
  attend_rows<float, float>(size, layer, rest, rows, at, qkv, mixed);
}
void attend_bfloat16_float32(const Sizes *size, const Layer *layer, const Rest *rest, int64_t rows, const int64_t *at,
                             const bfloat16 *qkv, bfloat16 *mixed) {
  attend_rows<bfloat16, float>(size, layer, rest, rows, at, qkv, mixed);
}
void attend_bfloat16_bfloat16(const Sizes *size, const Layer *layer, const Rest *rest, int64_t rows, const int64_t *at,
                              const bfloat16 *qkv, bfloat16 *mixed) {
  attend_rows<bfloat16, bfloat16>(size, layer, rest, rows, at, qkv, mixed);
}
void norm_float32(int64_t rows, int64_t dim, float eps, int64_t threads, float *x, const float *added,
                  const float *scale, float *y) {
  norm_rows<float>(rows, dim, eps, threads, x, added, scale, y);
}
void norm_bfloat16(int64_t rows, int64_t dim, float eps, int64_t threads, float *x, const bfloat16 *added,
                   const float *scale, bfloat16 *y) {
  norm_rows<bfloat16>(rows, dim, eps, threads, x, added, scale, y);
}
void gate_float32(int64_t rows, int64_t hidden, int64_t threads, const float *wide, float *to) {
  gate_rows<float>(rows, hidden, threads, wide, to);
}
void gate_bfloat16(int64_t rows, int64_t hidden, int64_t threads, const bfloat16 *wide, bfloat16 *to) {
  gate_rows<bfloat16>(rows, hidden, threads, wide, to);
}
}
