// Codes and values as pairs of bf16, in the order in which the matrix units take them.
#include <cuda_bf16.h>
using bf16 = __nv_bfloat16;

// Two ones.
constexpr unsigned int ONES = 0x3f803f80u;

// The codes of WORDS words as pairs. Of 4 bits: i and i + 4 of each word's eight; of 8 bits: i and i + 2 of its four.
template <int WORDS, int BITS>
__device__ inline void read_pairs(const unsigned int* at, unsigned int* pairs) {
  unsigned int words[WORDS];
  if constexpr (WORDS == 4) {
    const uint4 all = *reinterpret_cast<const uint4*>(at);
    words[0] = all.x, words[1] = all.y, words[2] = all.z, words[3] = all.w;
  } else if constexpr (WORDS == 2) {
    const uint2 all = *reinterpret_cast<const uint2*>(at);
    words[0] = all.x, words[1] = all.y;
  } else {
    words[0] = *at;
  }
#pragma unroll
  for (int w = 0; w < WORDS; w++) {
    if constexpr (BITS == 4) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        // 128 + code is exact: at 128 a bf16 counts in ones.
        const unsigned int raised = ((words[w] >> 4 * i) & 0x000f000fu) | 0x43004300u;
        const __nv_bfloat162 code = __hsub2(reinterpret_cast<const __nv_bfloat162&>(raised), __floats2bfloat162_rn(128.f, 128.f));
        pairs[w * 4 + i] = reinterpret_cast<const unsigned int&>(code);
      }
    } else {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const unsigned int both = words[w] >> 8 * i;
        const __nv_bfloat162 code = __floats2bfloat162_rn(float(both & 0xffu), float(both >> 16 & 0xffu));
        pairs[w * 2 + i] = reinterpret_cast<const unsigned int&>(code);
      }
    }
  }
}

// 2 * PAIRS neighbouring values in the order of `read_pairs`; zeros where the row is not real.
template <int PAIRS, int BITS>
__device__ inline void read_values(const bf16* at, bool real, unsigned int* pairs) {
  // Values of a word of codes: 8 or 4.
  constexpr int HALF = 16 / BITS;
  unsigned int words[PAIRS];
#pragma unroll
  for (int i = 0; i < PAIRS; i += 4) {
    const uint4 all = real ? reinterpret_cast<const uint4*>(at)[i / 4] : make_uint4(0, 0, 0, 0);
    words[i] = all.x, words[i + 1] = all.y, words[i + 2] = all.z, words[i + 3] = all.w;
  }
#pragma unroll
  for (int w = 0; w < PAIRS / HALF; w++) {
#pragma unroll
    for (int i = 0; i < HALF; i++) {
      // Value i and value i + HALF of the word's.
      const unsigned int low = words[w * HALF + i / 2], high = words[w * HALF + (i + HALF) / 2];
      pairs[w * HALF + i] = __byte_perm(low, high, i % 2 ? 0x7632 : 0x5410);
    }
  }
}

// sums [16, 8] += a [16, 16] b [16, 8], spread over a warp as `mma.m16n8k16` has them.
__device__ inline void multiply(float* sums, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
