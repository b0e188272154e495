// The gated delta rule, or Mamba 2's, over each row's new tokens, one after the other: block (value head and 32 of its columns, row).
//
// A token does S = decay S, S = S + k change^T, y = S^T q. By the delta rule keys and queries are of unit length and the change is
// strength (v - S^T k). By Mamba's (MAMBA) it is step v, and y gets skip v. Columns of S know nothing of each other; four threads share one, and
// hold its K elements in registers while all tokens pass.
//
// KEY_HEADS, VALUE_HEADS; K elements of a query or key, a multiple of 16; V of a value; T of the gates. BEGIN: bytes of a state before its
// matrices, [VALUE_HEADS, K, V], f32.
// step, at [1]: see step.cu; the recurrent layer's number. mixed [tokens, 2 * KEY_HEADS * K + VALUE_HEADS * V], f32: queries, keys, values; of
// Mamba values, keys, queries.
// decays, strengths [tokens, VALUE_HEADS], of type T; rate [VALUE_HEADS], f32; bias [VALUE_HEADS], T. A step is softplus(decay + bias), of Mamba
// held between two bounds; exp(-exp(rate) step) is left of a state, and 1 / (1 + e^-strength) of the way to the value is gone.
// own [VALUE_HEADS + 2], f32: Mamba's skips and bounds.
// read [tokens, VALUE_HEADS * V], f32.
constexpr int COLUMNS = 32, LANES = 4, FOURS = K / (4 * LANES), AT_ONCE = 32, ROW = 2 * K + COLUMNS, SPLITS = (V + COLUMNS - 1) / COLUMNS;
constexpr int WIDTH = 2 * KEY_HEADS * K + VALUE_HEADS * V, HEADS_AT = MAMBA ? VALUE_HEADS * V : 0;
constexpr int QUERY_AT = HEADS_AT + (MAMBA ? KEY_HEADS * K : 0), KEY_AT = HEADS_AT + (MAMBA ? 0 : KEY_HEADS * K);
constexpr int VALUE_AT = MAMBA ? 0 : 2 * KEY_HEADS * K;
__shared__ float4 tokens[AT_ONCE * ROW / 4];
__shared__ float gates[AT_ONCE][2];
const StepWords now(step);
const int head = blockIdx.x / SPLITS, first = blockIdx.x % SPLITS * COLUMNS, row = blockIdx.y;
const int key_head = head / (VALUE_HEADS / KEY_HEADS);
const int part = threadIdx.x % LANES, slot = threadIdx.x / LANES, column = first + slot;
const int2 run = now.runs()[row];
const long long place = static_cast<long long>(head) * K * V + column;
const float* before = reinterpret_cast<const float*>(now.state(at[0], row)[0] + BEGIN) + place;
float* after = reinterpret_cast<float*>(now.state(at[0], row)[1] + BEGIN) + place;
float state[FOURS][4];
#pragma unroll
for (int i = 0; i < FOURS; i++) {
#pragma unroll
  for (int j = 0; j < 4; j++) state[i][j] = column < V ? before[((i * LANES + part) * 4 + j) * V] : 0.f;
}
for (int begin = 0; begin < run.y; begin += AT_ONCE) {
  const int count = min(AT_ONCE, run.y - begin);
  float* staged = reinterpret_cast<float*>(tokens);
  for (int i = threadIdx.x; i < count * ROW; i += blockDim.x) {
    const int token = i / ROW, e = i % ROW;
    const float* source = mixed + static_cast<long long>(run.x + begin + token) * WIDTH;
    if (e < K) staged[i] = source[QUERY_AT + key_head * K + e];
    else if (e < 2 * K) staged[i] = source[KEY_AT + key_head * K + e - K];
    else staged[i] = first + e - 2 * K < V ? source[VALUE_AT + head * V + first + e - 2 * K] : 0.f;
  }
  if (threadIdx.x < count) {
    const long long gate = static_cast<long long>(run.x + begin + threadIdx.x) * VALUE_HEADS + head;
    const float x = static_cast<float>(decays[gate]) + static_cast<float>(bias[head]);
    float step = fmaxf(x, 0.f) + log1pf(expf(-fabsf(x)));
    if constexpr (MAMBA) step = fminf(fmaxf(step, own[VALUE_HEADS]), own[VALUE_HEADS + 1]);
    gates[threadIdx.x][0] = expf(-expf(rate[head]) * step);
    gates[threadIdx.x][1] = MAMBA ? step : 1.f / (1.f + expf(-static_cast<float>(strengths[gate])));
  }
  __syncthreads();
  for (int token = 0; token < count; token++) {
    const float4* query = tokens + token * (ROW / 4);
    const float4* key = query + K / 4;
    float of_query[4] = {0, 0, 0, 0}, of_key[4] = {0, 0, 0, 0}, both[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
      const float4 q = query[i * LANES + part], k = key[i * LANES + part];
      const float qs[4] = {q.x, q.y, q.z, q.w}, ks[4] = {k.x, k.y, k.z, k.w};
#pragma unroll
      for (int j = 0; j < 4; j++) {
        of_query[j] += qs[j] * state[i][j];
        of_key[j] += ks[j] * state[i][j];
        both[j] += qs[j] * ks[j];
      }
    }
    float asked = of_query[0] + of_query[1] + (of_query[2] + of_query[3]), known = of_key[0] + of_key[1] + (of_key[2] + of_key[3]);
    float met = both[0] + both[1] + (both[2] + both[3]);
#pragma unroll
    for (int other = 1; other < LANES; other *= 2) {
      asked += __shfl_xor_sync(0xffffffffu, asked, other);
      known += __shfl_xor_sync(0xffffffffu, known, other);
      met += __shfl_xor_sync(0xffffffffu, met, other);
    }
    const float decay = gates[token][0];
    const float value = reinterpret_cast<const float*>(key + K / 4)[slot];
    const float change = gates[token][1] * (MAMBA ? value : value - decay * known);
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
      const float4 k = key[i * LANES + part];
      const float ks[4] = {k.x, k.y, k.z, k.w};
#pragma unroll
      for (int j = 0; j < 4; j++) state[i][j] = decay * state[i][j] + ks[j] * change;
    }
    // S^T q is that of the faded state and the key's share of the change.
    if (part == 0 && column < V) {
      const float past = MAMBA ? own[head] * value : 0.f;
      read[static_cast<long long>(run.x + begin + token) * VALUE_HEADS * V + head * V + column] = decay * asked + met * change + past;
    }
  }
  __syncthreads();
}
if (column < V) {
#pragma unroll
  for (int i = 0; i < FOURS; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) after[((i * LANES + part) * 4 + j) * V] = state[i][j];
  }
}
