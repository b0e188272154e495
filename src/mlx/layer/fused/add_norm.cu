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
const float root = rsqrtf(block_sum<THREADS>(squares) / WIDTH + eps[0]);
#pragma unroll
for (int i = 0; i < EACH; i++) {
  const int e = i * THREADS + threadIdx.x;
  if (e < WIDTH) normed[row + e] = static_cast<T>(own[i] * root * static_cast<float>(weight[e]));
}
