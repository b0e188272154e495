// Stores the keys and values of a step's new tokens in their rows' pages, encoded, and turns queries and keys to their positions.
//
// Block (token, 4 vectors), a warp a vector: QUERIES query heads, then KV_HEADS keys, then as many values. A vector is read, divided
// by its root mean square and weighed where NORM, its first TURNED elements turned (pairs i and i + TURNED / 2, or neighbours where NEIGHBOURS),
// and written: queries to `turned`, the others to the page.
//
// K_WIDTH and V_WIDTH elements of a vector, K_BITS and V_BITS of stored elements, PAGE tokens of a page, T of all vectors.
// KEYS_AT and VALUES_AT: where keys and values begin in a token of theirs, Q_STRIDE, K_STRIDE and V_STRIDE: elements of a token.
// step, at: see step.cu and part.cu. x_q, x_k, x_v [tokens, stride]; q_weight, k_weight [K_WIDTH]; rates [TURNED / 2], f32: radians a
// position; turn [2], f32: what a position and what turned elements are multiplied by; eps [1], f32: what is added to the mean square.
// turned [tokens, QUERIES, K_WIDTH]; one element where QUERIES is 0.
constexpr int WIDEST = K_WIDTH > V_WIDTH ? K_WIDTH : V_WIDTH;
__shared__ float vectors[4][WIDEST];
const int lane = threadIdx.x % 32, token = blockIdx.x, vector = blockIdx.y * 4 + threadIdx.x / 32;
if (vector >= QUERIES + 2 * KV_HEADS) return;
float* own = vectors[threadIdx.x / 32];
const bool is_query = vector < QUERIES, is_value = vector >= QUERIES + KV_HEADS;
const int head = is_query ? vector : (vector - QUERIES) % KV_HEADS;
const int width = is_value ? V_WIDTH : K_WIDTH;
const T* source = is_query ? x_q + static_cast<long long>(token) * Q_STRIDE + head * K_WIDTH
    : is_value ? x_v + static_cast<long long>(token) * V_STRIDE + VALUES_AT + head * V_WIDTH
               : x_k + static_cast<long long>(token) * K_STRIDE + KEYS_AT + head * K_WIDTH;
float squares = 0;
for (int e = lane; e < width; e += 32) {
  const float x = static_cast<float>(source[e]);
  own[e] = x;
  squares += x * x;
}
if constexpr (NORM) {
#pragma unroll
  for (int other = 16; other > 0; other /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, other);
  const float root = rsqrtf(squares / width + eps[0]);
  const T* weight = is_query ? q_weight : k_weight;
  if (!is_value) {
    for (int e = lane; e < width; e += 32) own[e] = static_cast<float>(static_cast<T>(own[e] * root * static_cast<float>(weight[e])));
  }
}
__syncwarp();
const StepWords now(step);
const int position = now.positions()[token];
if constexpr (TURNED > 0) {
  if (!is_value) {
    for (int i = lane; i < TURNED / 2; i += 32) {
      const int a = NEIGHBOURS ? 2 * i : i, b = NEIGHBOURS ? 2 * i + 1 : i + TURNED / 2;
      float sine, cosine;
      sincosf(position * turn[0] * rates[i], &sine, &cosine);
      const float x = own[a] * turn[1], y = own[b] * turn[1];
      own[a] = x * cosine - y * sine;
      own[b] = x * sine + y * cosine;
    }
    __syncwarp();
  }
}
if (is_query) {
  T* out = turned + (static_cast<long long>(token) * QUERIES + head) * K_WIDTH;
  for (int e = lane; e < width; e += 32) out[e] = static_cast<T>(own[e]);
  return;
}
unsigned char* page = reinterpret_cast<unsigned char*>(now.table(at[6], now.rows()[token])[position / PAGE]);
const int slot = head * PAGE + position % PAGE;
if (is_value) {
  encode_vector<V_BITS, V_WIDTH>(own, page + at[3], page + at[4], page + at[5], slot, lane);
} else {
  encode_vector<K_BITS, K_WIDTH>(own, page + at[0], page + at[1], page + at[2], slot, lane);
}
