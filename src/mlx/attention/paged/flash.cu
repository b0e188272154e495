// Attention of a chunk of a row's tokens over its decoded keys, on the matrix units, in tiles of keys (Dao 2023).
//
// Block (tile of 128 queries, head), eight warps with 16 queries each. Keys and values come in tiles of TILE tokens, the next while one is
// multiplied. Scores stay in registers; softmax is the running one.
//
// D elements of a head (64, 128 or 256), REPEATS query heads a key head, T of queries and result, SINKS as in join.cu.
// query [tokens of the step, heads, D]; keys and values [kv heads, slots, D], half; span [6]: the chunk's first token in the step, its tokens, the
// first's position, the position in slot 0, slots, tokens of the window or 0; factor [1]: of scores; sinks [heads].
// attended [tokens, heads * D].
constexpr int ROWS = 128, THREADS = 256, TILE = D > 128 ? 32 : 64, CHUNKS = D / 8;
constexpr bool HELD = D <= 128;
extern __shared__ uint4 shared[];
const unsigned memory = shared_address(shared);
constexpr unsigned Q_BYTES = ROWS * D * 2, TILE_BYTES = TILE * D * 2;
const int tokens = span[1], position = span[2], origin = span[3], slots = span[4], window = span[5];
const int head = blockIdx.y, heads = gridDim.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
// The longest first.
const int first = (gridDim.x - 1 - blockIdx.x) * ROWS, behind = min(first + ROWS, tokens);
const T* q = query + (static_cast<long long>(span[0] + first) * heads + head) * D;
const __half* k = keys + static_cast<long long>(head / REPEATS) * slots * D;
const __half* v = values + static_cast<long long>(head / REPEATS) * slots * D;
// In slots from here on.
const int own = position + first - origin, end = position + behind - origin;
const int begin = window > 0 ? max(own - window + 1, 0) : 0;

const auto fetch = [&](int tile, int buffer) {
  const unsigned to = memory + Q_BYTES + buffer * 2 * TILE_BYTES;
#pragma unroll
  for (int i = threadIdx.x; i < TILE * CHUNKS; i += THREADS) {
    const int row = i / CHUNKS, chunk = i % CHUNKS, slot = tile + row;
    const bool there = slot < end;
    const long long from = static_cast<long long>(there ? slot : 0) * D + chunk * 8;
    begin_copy(to + place<D>(row, chunk), k + from, there);
    begin_copy(to + TILE_BYTES + place<D>(row, chunk), v + from, there);
  }
  end_set();
};
fetch(begin, 0);
for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
  const int row = i / CHUNKS, chunk = i % CHUNKS;
  float x[8];
#pragma unroll
  for (int e = 0; e < 8; e++) x[e] = first + row < tokens ? static_cast<float>(q[static_cast<long long>(row) * heads * D + chunk * 8 + e]) : 0.f;
  shared[place<D>(row, chunk) / 16] = make_uint4(halves(x[0], x[1]), halves(x[2], x[3]), halves(x[4], x[5]), halves(x[6], x[7]));
}
__syncthreads();
unsigned held[HELD ? D / 16 : 1][4];
if constexpr (HELD) {
#pragma unroll
  for (int s = 0; s < D / 16; s++) load_four(held[s], memory + place<D>(warp * 16 + lane % 16, 2 * s + lane / 16));
}
// By powers of 2.
const float scale = factor[0] * 1.4426950408889634f;
float out[D / 8][4], top[2] = {NOTHING, NOTHING}, sum[2] = {0, 0};
#pragma unroll
for (int n = 0; n < D / 8; n++) {
#pragma unroll
  for (int i = 0; i < 4; i++) out[n][i] = 0;
}
const int row = own + warp * 16 + lane / 4;
for (int tile = begin, buffer = 0; tile < end; tile += TILE, buffer ^= 1) {
  if (tile + TILE < end) {
    fetch(tile + TILE, buffer ^ 1);
    wait_for_sets<1>();
  } else {
    wait_for_sets<0>();
  }
  __syncthreads();
  const unsigned k_at = memory + Q_BYTES + buffer * 2 * TILE_BYTES, v_at = k_at + TILE_BYTES;
  float score[TILE / 8][4];
#pragma unroll
  for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) score[n][i] = 0;
  }
#pragma unroll
  for (int s = 0; s < D / 16; s++) {
    unsigned a[4];
    if constexpr (HELD) {
#pragma unroll
      for (int i = 0; i < 4; i++) a[i] = held[s][i];
    } else {
      load_four(a, memory + place<D>(warp * 16 + lane % 16, 2 * s + lane / 16));
    }
#pragma unroll
    for (int n = 0; n < TILE / 16; n++) {
      unsigned b[4];
      load_four(b, k_at + place<D>(n * 16 + lane % 8 + lane / 16 * 8, 2 * s + lane / 8 % 2));
      multiply_halves(score[2 * n], a, b[0], b[1]);
      multiply_halves(score[2 * n + 1], a, b[2], b[3]);
    }
  }
  const bool partial = tile + TILE > own + warp * 16 + 1 || (window > 0 && tile < own + warp * 16 + 16 - window);
  if (partial) {
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int key = tile + n * 8 + lane % 4 * 2 + i % 2, mine = row + i / 2 * 8;
        if (key > mine || (window > 0 && key <= mine - window)) score[n][i] = NOTHING;
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float higher = top[half];
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) higher = fmaxf(higher, fmaxf(score[n][2 * half], score[n][2 * half + 1]));
    higher = fmaxf(higher, __shfl_xor_sync(0xffffffffu, higher, 1));
    higher = fmaxf(higher, __shfl_xor_sync(0xffffffffu, higher, 2));
    // A row that has seen no key yet: infinity must not meet itself in a difference.
    const float from = higher == NOTHING ? 0.f : higher * scale;
    const float shrink = exp2f(top[half] * scale - from);
    top[half] = higher;
    float more = 0;
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        score[n][2 * half + i] = exp2f(score[n][2 * half + i] * scale - from);
        more += score[n][2 * half + i];
      }
    }
    sum[half] = sum[half] * shrink + more;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      out[n][2 * half] *= shrink;
      out[n][2 * half + 1] *= shrink;
    }
  }
#pragma unroll
  for (int s = 0; s < TILE / 16; s++) {
    const unsigned a[4] = {
        halves(score[2 * s][0], score[2 * s][1]), halves(score[2 * s][2], score[2 * s][3]),
        halves(score[2 * s + 1][0], score[2 * s + 1][1]), halves(score[2 * s + 1][2], score[2 * s + 1][3])};
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      unsigned b[4];
      load_four_across(b, v_at + place<D>(s * 16 + lane % 16, 2 * n + lane / 16));
      multiply_halves(out[2 * n], a, b[0], b[1]);
      multiply_halves(out[2 * n + 1], a, b[2], b[3]);
    }
  }
  __syncthreads();
}
#pragma unroll
for (int half = 0; half < 2; half++) {
  float all = sum[half];
  all += __shfl_xor_sync(0xffffffffu, all, 1);
  all += __shfl_xor_sync(0xffffffffu, all, 2);
  if constexpr (SINKS) all += exp2f(static_cast<float>(sinks[head]) * 1.4426950408889634f - top[half] * scale);
  const int mine = first + warp * 16 + lane / 4 + half * 8;
  if (mine < tokens) {
    T* to = attended + (static_cast<long long>(mine) * heads + head) * D + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      to[n * 8] = static_cast<T>(out[n][2 * half] / all);
      to[n * 8 + 1] = static_cast<T>(out[n][2 * half + 1] / all);
    }
  }
}
