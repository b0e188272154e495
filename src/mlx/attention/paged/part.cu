// One share of the keys of one query, for HEADS query heads of one key head: scores, softmax over the share, mixed values.
//
// Block (share, key head * SPLIT + group of query heads), four warps. LANES lanes hold a vector, eight elements each, so that a
// warp reads several tokens at a time; each group of lanes takes STEP tokens before it looks at their scores. Softmax is
// the running one: a maximum, a sum, and what was mixed so far, rescaled when the maximum grows.
//
// D elements of a head, HEADS * SPLIT query heads a key head, K_BITS and V_BITS of stored elements, PAGE tokens of a page, T
// of the queries, 64 elements a group.
// step: see step.cu. at [8]: bytes from a page's beginning to the layer's codes, scales and biases of keys, then of values; its part; its
// mask. query [tokens, heads, D]; factor [1]: of the scores; order: nothing that is read, made when this step's keys are stored.
// mixed [shares, heads, D], weights [shares, heads, 2]: maximum and sum.
constexpr int WARPS = 4, STEP = 4, LANES = D / 8, TOKENS = 32 / LANES, GROUPS = WARPS * TOKENS;
const int lane = threadIdx.x % LANES, token_of = threadIdx.x / LANES;
const int kv_head = blockIdx.y / SPLIT, kv_heads = gridDim.y / SPLIT, heads = kv_heads * SPLIT * HEADS;
const int first_head = blockIdx.y * HEADS;
const StepWords now(step);
const int4 share = now.shares(at[7])[blockIdx.x];
const unsigned long long* table = now.table(at[6], share.y);
const int begin = share.z, end = share.w;
const T* own = query + (static_cast<long long>(share.x) * heads + first_head) * D + lane * 8;

float q[HEADS][8], q_sum[HEADS];
#pragma unroll
for (int h = 0; h < HEADS; h++) {
  q_sum[h] = 0;
#pragma unroll
  for (int e = 0; e < 8; e++) {
    q[h][e] = static_cast<float>(own[h * D + e]) * factor[0];
    q_sum[h] += q[h][e];
  }
}
const int key_at = at[0] + lane * K_BITS, key_scale_at = at[1] + lane / 8 * 2, key_bias_at = at[2] + lane / 8 * 2;
const int value_at = at[3] + lane * V_BITS, value_scale_at = at[4] + lane / 8 * 2, value_bias_at = at[5] + lane / 8 * 2;

float top[HEADS], sum[HEADS], mix[HEADS][8];
#pragma unroll
for (int h = 0; h < HEADS; h++) {
  top[h] = NOTHING;
  sum[h] = 0;
#pragma unroll
  for (int e = 0; e < 8; e++) mix[h][e] = 0;
}
for (int round = begin; round < end; round += GROUPS * STEP) {
  const int base = round + token_of * STEP;
  float score[STEP][HEADS];
  const unsigned char* page_of[STEP];
  int slot_of[STEP];
#pragma unroll
  for (int t = 0; t < STEP; t++) {
    const int position = min(base + t, end - 1);
    page_of[t] = reinterpret_cast<const unsigned char*>(table[position / PAGE]);
    slot_of[t] = kv_head * PAGE + position % PAGE;
  }
#pragma unroll
  for (int t = 0; t < STEP; t++) {
    float code[8];
    read_eight<K_BITS>(page_of[t] + key_at + slot_of[t] * (D * K_BITS / 8), code);
    float scale = 1, bias = 0;
    if constexpr (K_BITS < 16) {
      scale = read_half(page_of[t] + key_scale_at + slot_of[t] * (D / 32));
      bias = read_half(page_of[t] + key_bias_at + slot_of[t] * (D / 32));
    }
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
      float dot = 0;
#pragma unroll
      for (int e = 0; e < 8; e++) dot += q[h][e] * code[e];
      score[t][h] = K_BITS < 16 ? scale * dot + bias * q_sum[h] : dot;
    }
  }
#pragma unroll
  for (int t = 0; t < STEP; t++) {
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
#pragma unroll
      for (int other = LANES / 2; other > 0; other /= 2) score[t][h] += __shfl_xor_sync(0xffffffffu, score[t][h], other);
      if (base + t >= end) score[t][h] = NOTHING;
    }
  }
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    float higher = top[h];
#pragma unroll
    for (int t = 0; t < STEP; t++) higher = fmaxf(higher, score[t][h]);
    // Infinity must not meet itself in a difference.
    const float from = higher == NOTHING ? 0 : higher;
    const float shrink = __expf(top[h] - from);
    top[h] = higher;
    sum[h] *= shrink;
#pragma unroll
    for (int e = 0; e < 8; e++) mix[h][e] *= shrink;
#pragma unroll
    for (int t = 0; t < STEP; t++) {
      score[t][h] = __expf(score[t][h] - from);
      sum[h] += score[t][h];
    }
  }
#pragma unroll
  for (int t = 0; t < STEP; t++) {
    float value[8];
    read_eight<V_BITS>(page_of[t] + value_at + slot_of[t] * (D * V_BITS / 8), value);
    if constexpr (V_BITS < 16) {
      const float scale = read_half(page_of[t] + value_scale_at + slot_of[t] * (D / 32));
      const float bias = read_half(page_of[t] + value_bias_at + slot_of[t] * (D / 32));
#pragma unroll
      for (int e = 0; e < 8; e++) value[e] = scale * value[e] + bias;
    }
#pragma unroll
    for (int e = 0; e < 8; e++) {
#pragma unroll
      for (int h = 0; h < HEADS; h++) mix[h][e] += score[t][h] * value[e];
    }
  }
}

__shared__ float group_top[GROUPS][HEADS], group_sum[GROUPS][HEADS], group_mix[GROUPS][HEADS][D];
#pragma unroll
for (int h = 0; h < HEADS; h++) {
  if (lane == 0) {
    group_top[token_of][h] = top[h];
    group_sum[token_of][h] = sum[h];
  }
#pragma unroll
  for (int e = 0; e < 8; e++) group_mix[token_of][h][lane * 8 + e] = mix[h][e];
}
__syncthreads();
for (int i = threadIdx.x; i < HEADS * D; i += WARPS * 32) {
  const int h = i / D;
  float all_top = NOTHING, all_sum = 0, all_mix = 0;
  for (int g = 0; g < GROUPS; g++) all_top = fmaxf(all_top, group_top[g][h]);
  for (int g = 0; g < GROUPS; g++) {
    const float weight = group_top[g][h] == NOTHING ? 0 : __expf(group_top[g][h] - all_top);
    all_sum += weight * group_sum[g][h];
    all_mix += weight * group_mix[g][h][i % D];
  }
  const long long head = static_cast<long long>(blockIdx.x) * heads + first_head + h;
  mixed[head * D + i % D] = all_mix;
  if (i % D == 0) {
    weights[head * 2] = all_top;
    weights[head * 2 + 1] = all_sum;
  }
}
