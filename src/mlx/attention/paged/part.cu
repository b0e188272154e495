// One share of the keys of one query, for HEADS query heads of one key head, on the matrix units: scores, softmax over the share, mixed
// values.
//
// Block (share, key head * SPLIT + group of query heads), four warps, each with every fourth tile of 16 tokens. In a product's operands
// lane 4 r + c holds head r and token r, and of 16 dimensions those that c has; codes become halves exactly, and a group's
// scale and bias are applied to its sums. Scores lie as the second product wants its weights. Softmax is the running one, by
// powers of 2.
//
// D elements of a head (64, 128 or 256), HEADS (at most 8) * SPLIT query heads a key head, K_BITS and V_BITS of stored elements, PAGE
// tokens of a page, a multiple of 16, T of the queries, 64 elements a group.
// step: see step.cu. at [8]: bytes from a page's beginning to the layer's codes, scales and biases of keys, then of values; its part; its
// mask. query [tokens, heads, D]; factor [1]: of the scores; order: nothing that is read, made when this step's keys are stored.
// mixed [shares, heads, D], weights [shares, heads, 2]: maximum, of scores by powers of 2, and sum.
constexpr int WARPS = 4, TILE = 16, GROUPS = D / 64;
// Weights are taken that much larger, so that small ones keep their digits as halves.
constexpr float RAISED = 64;
const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, c = lane % 4;
const int kv_head = blockIdx.y / SPLIT, heads = gridDim.y * HEADS, first_head = blockIdx.y * HEADS;
const StepWords now(step);
const int4 share = now.shares(at[7])[blockIdx.x];
const unsigned long long* table = now.table(at[6], share.y);
const int begin = share.z, end = share.w;
const T* own = query + (static_cast<long long>(share.x) * heads + first_head + r) * D;

// Queries as the first operand: of step s of a group the dimensions that `dimension_of` says, for head r; and their sums.
unsigned q[GROUPS][4][2];
float q_sum[GROUPS];
const float raised = factor[0] * 1.4426950408889634f;
#pragma unroll
for (int g = 0; g < GROUPS; g++) {
  q_sum[g] = 0;
#pragma unroll
  for (int s = 0; s < 4; s++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float x[2] = {0, 0};
#pragma unroll
      for (int i = 0; i < 2; i++) {
        if (r < HEADS) x[i] = static_cast<float>(own[g * 64 + c * 16 + dimension_of<K_BITS>(s, half, i)]) * raised;
      }
      const __half2 pair = __floats2half2_rn(x[0], x[1]);
      q[g][s][half] = reinterpret_cast<const unsigned&>(pair);
      q_sum[g] += __low2float(pair) + __high2float(pair);
    }
  }
  q_sum[g] += __shfl_xor_sync(0xffffffffu, q_sum[g], 1);
  q_sum[g] += __shfl_xor_sync(0xffffffffu, q_sum[g], 2);
}

float top = NOTHING, sum = 0, mix[GROUPS][8][2], mix_bias[GROUPS];
#pragma unroll
for (int g = 0; g < GROUPS; g++) {
  mix_bias[g] = 0;
#pragma unroll
  for (int j = 0; j < 8; j++) mix[g][j][0] = mix[g][j][1] = 0;
}
for (int tile = begin < end ? begin / TILE * TILE + warp * TILE : end; tile < end; tile += WARPS * TILE) {
  // A tile lies in one page.
  const unsigned char* page = reinterpret_cast<const unsigned char*>(table[tile / PAGE]);
  const int slot = kv_head * PAGE + tile % PAGE;
  // Everything is asked for before anything is waited for.
  Key<K_BITS> keys[2][GROUPS];
  Value<V_BITS> values[4][GROUPS];
  float k_scale[4][GROUPS], k_bias[4][GROUPS], v_scale[4][GROUPS], v_bias[4][GROUPS];
#pragma unroll
  for (int n = 0; n < 2; n++) {
    const unsigned char* from = page + at[0] + (slot + n * 8 + r) * (D * K_BITS / 8) + c * (2 * K_BITS);
#pragma unroll
    for (int g = 0; g < GROUPS; g++) keys[n][g].read(from + g * (8 * K_BITS));
  }
#pragma unroll
  for (int t = 0; t < 4; t++) {
    // Tokens 2 c, 2 c + 1, 2 c + 8 and 2 c + 9.
    const int token = slot + t / 2 * 8 + 2 * c + t % 2;
    const unsigned char* from = page + at[3] + token * (D * V_BITS / 8) + r * V_BITS;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) values[t][g].read(from + g * (8 * V_BITS));
  }
#pragma unroll
  for (int n = 0; n < 2; n++) {
    const int token = (slot + n * 8 + 2 * c) * (2 * GROUPS);
    if constexpr (K_BITS < 16) {
      read_two_tokens<GROUPS>(page + at[1] + token, k_scale[2 * n], k_scale[2 * n + 1]);
      read_two_tokens<GROUPS>(page + at[2] + token, k_bias[2 * n], k_bias[2 * n + 1]);
    }
    if constexpr (V_BITS < 16) {
      read_two_tokens<GROUPS>(page + at[4] + token, v_scale[2 * n], v_scale[2 * n + 1]);
      read_two_tokens<GROUPS>(page + at[5] + token, v_bias[2 * n], v_bias[2 * n + 1]);
    }
  }
  float score[4];
#pragma unroll
  for (int n = 0; n < 2; n++) {
    score[2 * n] = score[2 * n + 1] = 0;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
      float sums[2] = {0, 0};
#pragma unroll
      for (int s = 0; s < 4; s++) {
        unsigned pairs[2];
        keys[n][g].pairs(s, pairs);
        multiply_upper(sums, q[g][s][0], q[g][s][1], pairs[0], pairs[1]);
      }
#pragma unroll
      for (int i = 0; i < 2; i++) {
        score[2 * n + i] += K_BITS < 16 ? k_scale[2 * n + i][g] * sums[i] + k_bias[2 * n + i][g] * q_sum[g] : sums[i];
      }
    }
  }
  float higher = top;
#pragma unroll
  for (int t = 0; t < 4; t++) {
    const int position = tile + t / 2 * 8 + 2 * c + t % 2;
    if (position < begin || position >= end) score[t] = NOTHING;
    higher = fmaxf(higher, score[t]);
  }
  higher = fmaxf(higher, __shfl_xor_sync(0xffffffffu, higher, 1));
  higher = fmaxf(higher, __shfl_xor_sync(0xffffffffu, higher, 2));
  // A tile has a token of the share, so `higher` is finite.
  if (__any_sync(0xffffffffu, higher > top)) {
    const float shrink = exp2f(top - higher);
    sum *= shrink;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
      mix_bias[g] *= shrink;
#pragma unroll
      for (int j = 0; j < 8; j++) mix[g][j][0] *= shrink, mix[g][j][1] *= shrink;
    }
  }
  top = higher;
#pragma unroll
  for (int t = 0; t < 4; t++) {
    score[t] = exp2f(score[t] - top);
    sum += score[t];
  }
#pragma unroll
  for (int g = 0; g < GROUPS; g++) {
    float weight[4];
#pragma unroll
    for (int t = 0; t < 4; t++) {
      weight[t] = score[t] * RAISED;
      if constexpr (V_BITS < 16) {
        mix_bias[g] += score[t] * v_bias[t][g];
        weight[t] *= v_scale[t][g];
      }
    }
    const __half2 low = __floats2half2_rn(weight[0], weight[1]), high = __floats2half2_rn(weight[2], weight[3]);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const unsigned b0 = across(values[0][g], values[1][g], j), b1 = across(values[2][g], values[3][g], j);
      multiply_upper(mix[g][j], reinterpret_cast<const unsigned&>(low), reinterpret_cast<const unsigned&>(high), b0, b1);
    }
  }
}
sum += __shfl_xor_sync(0xffffffffu, sum, 1);
sum += __shfl_xor_sync(0xffffffffu, sum, 2);

__shared__ float warp_top[WARPS][HEADS], warp_sum[WARPS][HEADS], warp_mix[WARPS][HEADS][D];
#pragma unroll
for (int g = 0; g < GROUPS; g++) {
  mix_bias[g] += __shfl_xor_sync(0xffffffffu, mix_bias[g], 1);
  mix_bias[g] += __shfl_xor_sync(0xffffffffu, mix_bias[g], 2);
  if (r < HEADS) {
#pragma unroll
    for (int j = 0; j < 8; j++) {
#pragma unroll
      for (int i = 0; i < 2; i++) warp_mix[warp][r][g * 64 + (2 * c + i) * 8 + j] = mix[g][j][i] * (1 / RAISED) + mix_bias[g];
    }
  }
}
if (r < HEADS && c == 0) warp_top[warp][r] = top, warp_sum[warp][r] = sum;
__syncthreads();
for (int i = threadIdx.x; i < HEADS * D; i += WARPS * 32) {
  const int h = i / D;
  float all_top = NOTHING, all_sum = 0, all_mix = 0;
#pragma unroll
  for (int w = 0; w < WARPS; w++) all_top = fmaxf(all_top, warp_top[w][h]);
#pragma unroll
  for (int w = 0; w < WARPS; w++) {
    // Infinity must not meet itself in a difference.
    const float weight = warp_top[w][h] == NOTHING ? 0 : exp2f(warp_top[w][h] - all_top);
    all_sum += weight * warp_sum[w][h];
    all_mix += weight * warp_mix[w][h][i % D];
  }
  const long long head = static_cast<long long>(blockIdx.x) * heads + first_head + h;
  mixed[head * D + i % D] = all_mix;
  if (i % D == 0) {
    weights[head * 2] = all_top;
    weights[head * 2 + 1] = all_sum;
  }
}
