// Elements as pages hold them. Codes are packed as MLX packs them: element i of a vector in bits i * BITS .. (i + 1) * BITS
// of its little-endian words.
#include <cuda_fp16.h>

// A whole number below 2^23 as a float: one operation on bits and one sum, where a conversion takes four times as long.
__device__ inline float whole(unsigned int number) { return __uint_as_float(number | 0x4b000000u) - 8388608.f; }

// Eight neighbouring elements from `at` on, which is a multiple of their size: codes, or what they stand for.
template <int BITS>
__device__ inline void read_eight(const unsigned char* at, float* out) {
  if constexpr (BITS == 4) {
    const unsigned int word = *reinterpret_cast<const unsigned int*>(at);
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = whole(word >> 4 * i & 15u);
  } else if constexpr (BITS == 8) {
    const uint2 words = *reinterpret_cast<const uint2*>(at);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      out[i] = whole(__byte_perm(words.x, 0, 0x4440 + i));
      out[i + 4] = whole(__byte_perm(words.y, 0, 0x4440 + i));
    }
  } else if constexpr (BITS == 16) {
    const uint4 words = *reinterpret_cast<const uint4*>(at);
    const __half2* pairs = reinterpret_cast<const __half2*>(&words);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float2 pair = __half22float2(pairs[i]);
      out[2 * i] = pair.x, out[2 * i + 1] = pair.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const float4 four = reinterpret_cast<const float4*>(at)[i];
      out[4 * i] = four.x, out[4 * i + 1] = four.y, out[4 * i + 2] = four.z, out[4 * i + 3] = four.w;
    }
  }
}

__device__ inline float read_half(const unsigned char* at) { return __half2float(*reinterpret_cast<const __half*>(at)); }
