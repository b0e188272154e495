// sum = x + more, and its root-mean-square norm: block (token), WIDTH elements of type T.
//
// x, more [tokens, WIDTH]; weight [WIDTH]; eps [1]. sum, normed [tokens, WIDTH].
constexpr int THREADS = 256, EACH = (WIDTH + THREADS - 1) / THREADS;
const long long row = static_cast<long long>(blockIdx.x) * WIDTH;
float own[EACH], squares = 0;
#pragma unroll
for (int i = 0; i < EACH; i++) {
  const int e = i * THREADS + threadIdx.x;
  own[i] = 0;
  if (e < WIDTH) {
    const T both = static_cast<T>(static_cast<float>(x[row + e]) + static_cast<float>(more[row + e]));
    sum[row + e] = both;
    own[i] = static_cast<float>(both);
  }
  squares += own[i] * own[i];
}
#pragma unroll
for (int other = 16; other > 0; other /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, other);
__shared__ float of_warp[THREADS / 32];
if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = squares;
__syncthreads();
squares = 0;
#pragma unroll
for (int w = 0; w < THREADS / 32; w++) squares += of_warp[w];
const float root = rsqrtf(squares / WIDTH + eps[0]);
#pragma unroll
for (int i = 0; i < EACH; i++) {
  const int e = i * THREADS + threadIdx.x;
  if (e < WIDTH) normed[row + e] = static_cast<T>(own[i] * root * static_cast<float>(weight[e]));
}
