// Products of a few rows with a quantized weight, y = x W^T, on the matrix units: each code is read once for all rows.
//
// Block: 16 outputs; its WARPS warps share the inner dimension in runs of whole chunks. A chunk is a group, or 64 of it. Of
// a chunk a thread takes a quarter of two outputs' codes and the same quarter of the rows' x, in an order of its own, which
// both sides share. Codes are whole numbers that bf16 holds exactly; scale and bias are applied to a chunk's sums in f32.
//
// TILES of 8 rows, BITS of the codes (4 or 8), GROUP weights a scale (32, 64 or 128). bf16 throughout.
// x [rows, inner]; codes [outputs, inner * BITS / 32]; scales and biases [outputs, inner / GROUP]. y [rows, outputs].
constexpr int WARPS = 8, CHUNK = GROUP < 64 ? GROUP : 64, TAKEN = CHUNK / 4;
constexpr int WORDS = TAKEN * BITS / 32, PAIRS = TAKEN / 2;
const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
const int row_of = lane / 4, quarter = lane % 4;
const int rows = x_shape[0], outputs = codes_shape[0], inner = x_shape[1];
const int first = blockIdx.x * 16;
const int chunks = inner / CHUNK, groups = inner / GROUP;
const int run = (chunks + WARPS - 1) / WARPS;
const int from = warp * run, to = min(from + run, chunks);

const unsigned int* line[2];
const bf16* scale_of[2];
const bf16* bias_of[2];
#pragma unroll
for (int half = 0; half < 2; half++) {
  const long long output = min(first + row_of + 8 * half, outputs - 1);
  line[half] = codes + output * (inner * BITS / 32) + quarter * WORDS;
  scale_of[half] = scales + output * groups;
  bias_of[half] = biases + output * groups;
}
const bf16* values[TILES];
bool real[TILES];
#pragma unroll
for (int tile = 0; tile < TILES; tile++) {
  const int row = tile * 8 + row_of;
  real[tile] = row < rows;
  values[tile] = x + static_cast<long long>(real[tile] ? row : 0) * inner + quarter * TAKEN;
}

float total[TILES][4];
#pragma unroll
for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
  for (int i = 0; i < 4; i++) total[tile][i] = 0;
}
#pragma unroll 2
for (int chunk = from; chunk < to; chunk++) {
  unsigned int pairs[2][PAIRS];
  float scale[2], bias[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    read_pairs<WORDS, BITS>(line[half] + chunk * (CHUNK * BITS / 32), pairs[half]);
    scale[half] = static_cast<float>(scale_of[half][chunk * CHUNK / GROUP]);
    bias[half] = static_cast<float>(bias_of[half][chunk * CHUNK / GROUP]);
  }
#pragma unroll
  for (int tile = 0; tile < TILES; tile++) {
    unsigned int x_pairs[PAIRS];
    read_values<PAIRS, BITS>(values[tile] + chunk * CHUNK, real[tile], x_pairs);
    float sums[4] = {0, 0, 0, 0}, ones[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < PAIRS; i += 2) {
      multiply(sums, pairs[0][i], pairs[1][i], pairs[0][i + 1], pairs[1][i + 1], x_pairs[i], x_pairs[i + 1]);
      multiply(ones, ONES, ONES, ONES, ONES, x_pairs[i], x_pairs[i + 1]);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) total[tile][i] += scale[i / 2] * sums[i] + bias[i / 2] * ones[i];
  }
}
__shared__ float parts[WARPS][TILES][16][8];
#pragma unroll
for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
  for (int i = 0; i < 4; i++) parts[warp][tile][row_of + i / 2 * 8][quarter * 2 + i % 2] = total[tile][i];
}
__syncthreads();
for (int i = threadIdx.x; i < TILES * 128; i += WARPS * 32) {
  const int tile = i / 128, output = i % 16, row = i % 128 / 16;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < WARPS; w++) sum += parts[w][tile][output][row];
  if (tile * 8 + row < rows && first + output < outputs) {
    y[static_cast<long long>(tile * 8 + row) * outputs + first + output] = static_cast<bf16>(sum);
  }
}
