// A vector of WIDTH elements into slot `slot` of its planes, by one warp. Affine codes as MLX chooses them: the end of a group's
// range that is farther from 0 is met exactly, and so is 0 where the range holds it.
template <int BITS, int WIDTH>
__device__ inline void encode_vector(const float* x, unsigned char* codes, unsigned char* scales, unsigned char* biases, int slot, int lane) {
  if constexpr (BITS == 32) {
    for (int e = lane; e < WIDTH; e += 32) reinterpret_cast<float*>(codes)[static_cast<long long>(slot) * WIDTH + e] = x[e];
  } else if constexpr (BITS == 16) {
    for (int e = lane; e < WIDTH; e += 32) reinterpret_cast<__half*>(codes)[static_cast<long long>(slot) * WIDTH + e] = __float2half(x[e]);
  } else {
    constexpr float MOST = (1 << BITS) - 1;
    for (int group = 0; group < WIDTH / 64; group++) {
      const float a = x[group * 64 + 2 * lane], b = x[group * 64 + 2 * lane + 1];
      float low = fminf(a, b), high = fmaxf(a, b);
#pragma unroll
      for (int other = 16; other > 0; other /= 2) {
        low = fminf(low, __shfl_xor_sync(0xffffffffu, low, other));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, other));
      }
      const bool from_low = fabsf(low) > fabsf(high);
      const float edge = from_low ? low : high;
      float scale = fmaxf((high - low) / MOST, 1e-7f);
      if (!from_low) scale = -scale;
      const float zero = rintf(edge / scale);
      const float bias = zero == 0 ? 0 : edge;
      if (zero != 0) scale = edge / zero;
      // Codes belong to the scale and bias as they are stored.
      const __half scale_half = __float2half(scale), bias_half = __float2half(bias);
      const float stored = __half2float(scale_half), start = __half2float(bias_half);
      const auto code = [&](float value) {
        return static_cast<unsigned int>(stored == 0 ? 0 : fminf(fmaxf(rintf((value - start) / stored), 0.f), MOST));
      };
      const unsigned int first = code(a), second = code(b);
      unsigned char* place = codes + static_cast<long long>(slot) * (WIDTH * BITS / 8) + group * (8 * BITS);
      if constexpr (BITS == 8) {
        reinterpret_cast<unsigned short*>(place)[lane] = static_cast<unsigned short>(first | second << 8);
      } else {
        place[lane] = static_cast<unsigned char>(first | second << 4);
      }
      if (lane == 0) {
        reinterpret_cast<__half*>(scales)[slot * (WIDTH / 64) + group] = scale_half;
        reinterpret_cast<__half*>(biases)[slot * (WIDTH / 64) + group] = bias_half;
      }
    }
  }
}
