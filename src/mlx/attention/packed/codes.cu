// Codes as MLX packs them: element i of a vector in bits i * BITS .. (i + 1) * BITS of its little-endian words.

// The maximum of no scores.
#define NOTHING (-__int_as_float(0x7f800000))

// N codes of a vector, from byte `at` on, as floats. N * BITS / 8 is 1, 2, 4 or 8 bytes, and `at` a multiple of it.
template <int N, int BITS>
__device__ inline void read_codes(const unsigned char* at, float* out) {
  constexpr int BYTES = N * BITS / 8;
  unsigned int words[BYTES > 4 ? 2 : 1];
  if constexpr (BYTES == 8) {
    uint2 both = *reinterpret_cast<const uint2*>(at);
    words[0] = both.x;
    words[1] = both.y;
  } else if constexpr (BYTES == 4) {
    words[0] = *reinterpret_cast<const unsigned int*>(at);
  } else if constexpr (BYTES == 2) {
    words[0] = *reinterpret_cast<const unsigned short*>(at);
  } else {
    words[0] = *at;
  }
  constexpr int PER_WORD = 32 / BITS;
#pragma unroll
  for (int i = 0; i < N; i++) {
    out[i] = static_cast<float>((words[i / PER_WORD] >> (i % PER_WORD * BITS)) & ((1u << BITS) - 1));
  }
}
