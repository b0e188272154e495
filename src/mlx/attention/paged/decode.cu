// Eight elements of a stored vector of WIDTH, number `eight` of its eights, decoded.
template <int BITS, int WIDTH>
__device__ inline void decode_eight(const unsigned char* codes, const unsigned char* scales, const unsigned char* biases, int slot, int eight, float* x) {
  read_eight<BITS>(codes + static_cast<long long>(slot) * (WIDTH * BITS / 8) + eight * BITS, x);
  if constexpr (BITS < 16) {
    const int group = slot * (WIDTH / 64) + eight / 8;
    const float scale = read_half(scales + 2 * group), bias = read_half(biases + 2 * group);
#pragma unroll
    for (int e = 0; e < 8; e++) x[e] = scale * x[e] + bias;
  }
}
__device__ inline void write_eight(__half* to, const float* x) {
  __half2 pairs[4];
#pragma unroll
  for (int i = 0; i < 4; i++) pairs[i] = __floats2half2_rn(x[2 * i], x[2 * i + 1]);
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(pairs);
}
__device__ inline void write_eight(float* to, const float* x) {
  reinterpret_cast<float4*>(to)[0] = make_float4(x[0], x[1], x[2], x[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(x[4], x[5], x[6], x[7]);
}
