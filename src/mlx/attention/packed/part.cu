// One share of the keys of one query of a row, for the query heads of one key head: scores, softmax over the share, mixed
// values.
//
// Block (query * shares + share, key head), WARPS warps. A warp takes STEP tokens at a time; a lane holds E neighbouring
// elements of every vector. Softmax is the running one: a maximum, a sum, and what was mixed so far, rescaled when the
// maximum grows.
//
// D elements of a head, REPEATS query heads a key head, K_BITS and V_BITS of the codes, T of the queries, 64 a group.
// query [queries, heads, D]; *_codes [kv heads, capacity, D * bits / 32]; *_scales and *_biases [kv heads, capacity, D / 64];
// span [4]: slot from which the first query sees (each further query one later; below 0: from the first), slot behind the
// first query's own, capacity, shares; factor [1]: of the scores.
// mixed [queries, shares, heads, D], weights [queries, shares, heads, 2]: maximum and sum.
constexpr int WARPS = 4, STEP = 4, E = D / 32, GROUPS = D / 64;
const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
const int shares = span[3], kv_head = blockIdx.y, heads = gridDim.y * REPEATS;
const int query_at = blockIdx.x / shares, share = blockIdx.x % shares;
const int first = max(span[0] + query_at, 0), behind = span[1] + query_at;
const long long slots = static_cast<long long>(kv_head) * span[2];
const int count = (behind - first + shares - 1) / shares;
const int begin = first + share * count, end = min(begin + count, behind);
const int group = lane * E / 64;
const T* own = query + static_cast<long long>(query_at) * heads * D;

float q[REPEATS][E], q_sum[REPEATS];
#pragma unroll
for (int r = 0; r < REPEATS; r++) {
  q_sum[r] = 0;
#pragma unroll
  for (int e = 0; e < E; e++) {
    q[r][e] = static_cast<float>(own[(kv_head * REPEATS + r) * D + lane * E + e]) * factor[0];
    q_sum[r] += q[r][e];
  }
}
const unsigned char* keys = reinterpret_cast<const unsigned char*>(k_codes) + lane * (E * K_BITS / 8);
const unsigned char* values = reinterpret_cast<const unsigned char*>(v_codes) + lane * (E * V_BITS / 8);

float top[REPEATS], sum[REPEATS], mix[REPEATS][E];
#pragma unroll
for (int r = 0; r < REPEATS; r++) {
  top[r] = NOTHING;
  sum[r] = 0;
#pragma unroll
  for (int e = 0; e < E; e++) mix[r][e] = 0;
}
for (int at = begin + warp * STEP; at < end; at += WARPS * STEP) {
  float score[STEP][REPEATS];
#pragma unroll
  for (int t = 0; t < STEP; t++) {
    const long long slot = slots + min(at + t, end - 1);
    float code[E];
    read_codes<E, K_BITS>(keys + slot * (D * K_BITS / 8), code);
    const float scale = __half2float(k_scales[slot * GROUPS + group]);
    const float bias = __half2float(k_biases[slot * GROUPS + group]);
#pragma unroll
    for (int r = 0; r < REPEATS; r++) {
      float dot = 0;
#pragma unroll
      for (int e = 0; e < E; e++) dot += q[r][e] * code[e];
      dot = scale * dot + bias * q_sum[r];
#pragma unroll
      for (int other = 16; other > 0; other /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, other);
      score[t][r] = at + t < end ? dot : NOTHING;
    }
  }
#pragma unroll
  for (int r = 0; r < REPEATS; r++) {
    float higher = top[r];
#pragma unroll
    for (int t = 0; t < STEP; t++) higher = fmaxf(higher, score[t][r]);
    // The first token of a step is always there, so `higher` is finite.
    const float shrink = __expf(top[r] - higher);
    top[r] = higher;
    sum[r] *= shrink;
#pragma unroll
    for (int e = 0; e < E; e++) mix[r][e] *= shrink;
#pragma unroll
    for (int t = 0; t < STEP; t++) {
      score[t][r] = __expf(score[t][r] - higher);
      sum[r] += score[t][r];
    }
  }
#pragma unroll
  for (int t = 0; t < STEP; t++) {
    const long long slot = slots + min(at + t, end - 1);
    float code[E];
    read_codes<E, V_BITS>(values + slot * (D * V_BITS / 8), code);
    const float scale = __half2float(v_scales[slot * GROUPS + group]);
    const float bias = __half2float(v_biases[slot * GROUPS + group]);
#pragma unroll
    for (int e = 0; e < E; e++) {
      const float value = scale * code[e] + bias;
#pragma unroll
      for (int r = 0; r < REPEATS; r++) mix[r][e] += score[t][r] * value;
    }
  }
}

__shared__ float warp_top[WARPS][REPEATS], warp_sum[WARPS][REPEATS], warp_mix[WARPS][REPEATS][D];
#pragma unroll
for (int r = 0; r < REPEATS; r++) {
  if (lane == 0) {
    warp_top[warp][r] = top[r];
    warp_sum[warp][r] = sum[r];
  }
#pragma unroll
  for (int e = 0; e < E; e++) warp_mix[warp][r][lane * E + e] = mix[r][e];
}
__syncthreads();
for (int i = threadIdx.x; i < REPEATS * D; i += WARPS * 32) {
  const int r = i / D;
  float all_top = NOTHING, all_sum = 0, all_mix = 0;
  for (int w = 0; w < WARPS; w++) all_top = fmaxf(all_top, warp_top[w][r]);
  for (int w = 0; w < WARPS; w++) {
    // Infinity must not meet itself in a difference.
    const float weight = warp_top[w][r] == NOTHING ? 0 : __expf(warp_top[w][r] - all_top);
    all_sum += weight * warp_sum[w][r];
    all_mix += weight * warp_mix[w][r][i % D];
  }
  const long long head = static_cast<long long>(blockIdx.x) * heads + kv_head * REPEATS + r;
  mixed[head * D + i % D] = all_mix;
  if (i % D == 0) {
    weights[head * 2] = all_top;
    weights[head * 2 + 1] = all_sum;
  }
}
