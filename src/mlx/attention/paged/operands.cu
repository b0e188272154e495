// Stored elements as operands of the matrix units: pairs of halves, in an order that keys share with queries.
#include <cuda_fp16.h>

// The maximum of no scores.
#define NOTHING (-__int_as_float(0x7f800000))

// Which of the 16 dimensions that a lane has of a group element i of half `half` of step s is.
template <int BITS>
__device__ constexpr int dimension_of(int s, int half, int i) {
  // Codes of 4 bits come as element e and e + 4 of a word's eight.
  return BITS == 4 ? s / 2 * 8 + s % 2 * 2 + half + 4 * i : 4 * s + 2 * half + i;
}

// Two codes, each in the lower bits of a half, as the numbers they are: 1024 + code is exact, since a half counts in ones there.
__device__ inline unsigned numbers(unsigned codes) {
  const unsigned raised = codes | 0x64006400u;
  const __half2 pair = __hsub2(reinterpret_cast<const __half2&>(raised), __floats2half2_rn(1024.f, 1024.f));
  return reinterpret_cast<const unsigned&>(pair);
}
__device__ inline unsigned halves(float a, float b) {
  const __half2 pair = __floats2half2_rn(a, b);
  return reinterpret_cast<const unsigned&>(pair);
}

// 16 neighbouring elements of a key.
template <int BITS>
struct Key {
  unsigned words[BITS / 2];
  __device__ inline void read(const unsigned char* from) {
    if constexpr (BITS == 4) {
      const uint2 two = *reinterpret_cast<const uint2*>(from);
      words[0] = two.x, words[1] = two.y;
    } else {
#pragma unroll
      for (int i = 0; i < BITS / 8; i++) {
        const uint4 four = reinterpret_cast<const uint4*>(from)[i];
        words[4 * i] = four.x, words[4 * i + 1] = four.y, words[4 * i + 2] = four.z, words[4 * i + 3] = four.w;
      }
    }
  }
  // Those of step s.
  __device__ inline void pairs(int s, unsigned* out) const {
    if constexpr (BITS == 4) {
#pragma unroll
      for (int half = 0; half < 2; half++) out[half] = numbers(words[s / 2] >> 4 * (s % 2 * 2 + half) & 0x000f000fu);
    } else if constexpr (BITS == 8) {
      out[0] = numbers(__byte_perm(words[s], 0, 0x4140));
      out[1] = numbers(__byte_perm(words[s], 0, 0x4342));
    } else if constexpr (BITS == 16) {
      out[0] = words[2 * s], out[1] = words[2 * s + 1];
    } else {
#pragma unroll
      for (int half = 0; half < 2; half++) out[half] = halves(__uint_as_float(words[4 * s + 2 * half]), __uint_as_float(words[4 * s + 2 * half + 1]));
    }
  }
};

// Eight neighbouring elements of a value.
template <int BITS>
struct Value {
  unsigned words[BITS / 4];
  __device__ inline void read(const unsigned char* from) {
    if constexpr (BITS == 4) {
      words[0] = *reinterpret_cast<const unsigned*>(from);
    } else if constexpr (BITS == 8) {
      const uint2 two = *reinterpret_cast<const uint2*>(from);
      words[0] = two.x, words[1] = two.y;
    } else {
#pragma unroll
      for (int i = 0; i < BITS / 16; i++) {
        const uint4 four = reinterpret_cast<const uint4*>(from)[i];
        words[4 * i] = four.x, words[4 * i + 1] = four.y, words[4 * i + 2] = four.z, words[4 * i + 3] = four.w;
      }
    }
  }
};

// Element j of two tokens as a pair.
template <int BITS>
__device__ inline unsigned across(const Value<BITS>& a, const Value<BITS>& b, int j) {
  if constexpr (BITS == 4) {
    const unsigned both = __byte_perm(a.words[0], b.words[0], j < 4 ? 0x5410 : 0x7632);
    return numbers(both >> 4 * (j % 4) & 0x000f000fu);
  } else if constexpr (BITS == 8) {
    const unsigned both = __byte_perm(a.words[j / 4], b.words[j / 4], j % 4 | (4 + j % 4) << 4);
    return numbers(__byte_perm(both, 0, 0x4140));
  } else if constexpr (BITS == 16) {
    return __byte_perm(a.words[j / 2], b.words[j / 2], j % 2 ? 0x7632 : 0x5410);
  } else {
    return halves(__uint_as_float(a.words[j]), __uint_as_float(b.words[j]));
  }
}

// The numbers, halves, of GROUPS groups of two neighbouring tokens.
template <int GROUPS>
__device__ inline void read_two_tokens(const unsigned char* from, float* first, float* second) {
  __half2 pairs[GROUPS];
  if constexpr (GROUPS == 1) {
    *reinterpret_cast<unsigned*>(pairs) = *reinterpret_cast<const unsigned*>(from);
  } else if constexpr (GROUPS == 2) {
    *reinterpret_cast<uint2*>(pairs) = *reinterpret_cast<const uint2*>(from);
  } else {
    *reinterpret_cast<uint4*>(pairs) = *reinterpret_cast<const uint4*>(from);
  }
  const __half* all = reinterpret_cast<const __half*>(pairs);
#pragma unroll
  for (int g = 0; g < GROUPS; g++) {
    first[g] = __half2float(all[g]);
    second[g] = __half2float(all[GROUPS + g]);
  }
}

// Tiles in shared memory, whose rows are WIDTH halves: where 16 bytes of a row lie, so that eight rows share no bank.
template <int WIDTH>
__device__ inline unsigned place(int row, int chunk) { return (row * (WIDTH / 8) + (chunk ^ (row & 7))) * 16; }
