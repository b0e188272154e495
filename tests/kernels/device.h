// What our kernels need of a GPU, in plain C++: a block's threads take turns on one of the host's, and change where a warp or the block
// meets.
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#define __device__
#define __shared__ static

using std::max;
using std::min;

struct Three { int x = 0, y = 0, z = 0; };
static Three threadIdx, blockIdx, blockDim, gridDim;

struct int2 { int x, y; };
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
struct int4 { int x, y, z, w; };
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

template <class To, class From>
static inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
static inline float __uint_as_float(unsigned x) { return bits<float>(x); }
static inline float __int_as_float(int x) { return bits<float>(x); }
static inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
static inline float device_exp(float x) { return std::exp(x); }
#define __expf device_exp

// IEEE halves, rounded to the nearest, ties to even.
struct __half { uint16_t word; };
struct __half2 { __half low, high; };
static inline float __half2float(__half half) {
  const unsigned exponent = half.word >> 10 & 31, mantissa = half.word & 1023;
  float x = exponent == 0 ? std::ldexp(float(mantissa), -24) : std::ldexp(float(mantissa | 1024), int(exponent) - 25);
  if (exponent == 31) x = mantissa ? NAN : INFINITY;
  return half.word >> 15 ? -x : x;
}
static inline __half __float2half(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const float size = std::fabs(x);
  if (std::isnan(x)) return {0x7e00};
  if (size >= 65520) return {uint16_t(sign | 0x7c00)};
  if (size < std::ldexp(1.f, -14)) return {uint16_t(sign | unsigned(std::nearbyint(std::ldexp(size, 24))))};
  int exponent;
  unsigned mantissa = unsigned(std::nearbyint(std::ldexp(std::frexp(size, &exponent), 11)));
  if (mantissa == 2048) mantissa = 1024, exponent++;
  return {uint16_t(sign | (exponent + 14) << 10 | (mantissa - 1024))};
}
static inline __half2 __floats2half2_rn(float a, float b) { return {__float2half(a), __float2half(b)}; }
static inline float __low2float(__half2 x) { return __half2float(x.low); }
static inline float __high2float(__half2 x) { return __half2float(x.high); }
static inline float2 __half22float2(__half2 x) { return {__low2float(x), __high2float(x)}; }
static inline __half2 __hsub2(__half2 a, __half2 b) {
  return __floats2half2_rn(__low2float(a) - __low2float(b), __high2float(a) - __high2float(b));
}

struct bf16 {
  uint16_t word;
  bf16() = default;
  explicit bf16(float x) {
    const unsigned all = bits<unsigned>(x);
    word = uint16_t((all + 0x7fff + (all >> 16 & 1)) >> 16);
  }
  explicit operator float() const { return bits<float>(unsigned(word) << 16); }
};

static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  unsigned char bytes[8];
  std::memcpy(bytes, &a, 4);
  std::memcpy(bytes + 4, &b, 4);
  unsigned out = 0;
  for (int i = 0; i < 4; i++) out |= unsigned(bytes[selector >> 4 * i & 7]) << 8 * i;
  return out;
}

// A block's threads. One runs until it waits or ends; then the next does.
static ucontext_t scheduler, contexts[256];
static bool ended[256];

// Where `size` threads meet.
struct Meeting {
  int size = 32, here = 0, number = 0;
  void arrive_and_wait() {
    const int mine = number, thread = threadIdx.x;
    if (++here == size) here = 0, number++;
    while (number == mine) swapcontext(&contexts[thread], &scheduler);
  }
};

// A warp: what its lanes show each other.
struct Warp {
  Meeting meet;
  float number[32];
  unsigned words[32][6];
  unsigned address[32];
};
static Warp warps[8];
static Meeting block;
static Warp& own_warp() { return warps[threadIdx.x / 32]; }
static int own_lane() { return threadIdx.x % 32; }

static void __syncthreads() { block.arrive_and_wait(); }
static void __syncwarp() { own_warp().meet.arrive_and_wait(); }
static float __shfl_xor_sync(unsigned, float x, int mask) {
  Warp& warp = own_warp();
  warp.number[own_lane()] = x;
  warp.meet.arrive_and_wait();
  const float out = warp.number[own_lane() ^ mask];
  warp.meet.arrive_and_wait();
  return out;
}
static bool __any_sync(unsigned, bool x) {
  Warp& warp = own_warp();
  warp.number[own_lane()] = x;
  warp.meet.arrive_and_wait();
  bool out = false;
  for (float number : warp.number) out |= number != 0;
  warp.meet.arrive_and_wait();
  return out;
}

// `units.cu`.
static float half_of(unsigned pair, int i) { return __half2float({uint16_t(pair >> 16 * i)}); }
static void multiply_halves(float* sums, const unsigned* a, unsigned b0, unsigned b1) {
  Warp& warp = own_warp();
  const int lane = own_lane();
  std::memcpy(warp.words[lane], a, 16);
  warp.words[lane][4] = b0, warp.words[lane][5] = b1;
  warp.meet.arrive_and_wait();
  for (int i = 0; i < 4; i++) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; k++) {
      const unsigned left = warp.words[row % 8 * 4 + k % 8 / 2][k / 8 * 2 + row / 8];
      const unsigned right = warp.words[column * 4 + k % 8 / 2][4 + k / 8];
      sums[i] += half_of(left, k % 2) * half_of(right, k % 2);
    }
  }
  warp.meet.arrive_and_wait();
}
static void multiply_upper(float* sums, unsigned a0, unsigned a2, unsigned b0, unsigned b1) {
  const unsigned a[4] = {a0, 0, a2, 0};
  float all[4] = {sums[0], sums[1], 0, 0};
  multiply_halves(all, a, b0, b1);
  sums[0] = all[0], sums[1] = all[1];
}
static unsigned char* shared_begin;
static unsigned shared_address(const void* memory) {
  shared_begin = static_cast<unsigned char*>(const_cast<void*>(memory));
  return 0;
}
static uint16_t shared_half(unsigned at) { return *reinterpret_cast<const uint16_t*>(shared_begin + at); }
static void load(unsigned* to, unsigned at, bool across) {
  Warp& warp = own_warp();
  const int lane = own_lane();
  warp.address[lane] = at;
  warp.meet.arrive_and_wait();
  for (int matrix = 0; matrix < 4; matrix++) {
    unsigned pair = 0;
    for (int i = 0; i < 2; i++) {
      const int row = across ? lane % 4 * 2 + i : lane / 4, column = across ? lane / 4 : lane % 4 * 2 + i;
      pair |= unsigned(shared_half(warp.address[matrix * 8 + row] + column * 2)) << 16 * i;
    }
    to[matrix] = pair;
  }
  warp.meet.arrive_and_wait();
}
static void load_four(unsigned* to, unsigned at) { load(to, at, false); }
static void load_four_across(unsigned* to, unsigned at) { load(to, at, true); }
static void begin_copy(unsigned to, const void* from, bool there) {
  if (there) std::memcpy(shared_begin + to, from, 16);
  else std::memset(shared_begin + to, 0, 16);
}
static void end_set() {}
template <int LEFT>
static void wait_for_sets() {}

// Runs a kernel: every block after the other.
template <class Kernel>
static void launch(int across, int down, int threads, Kernel kernel) {
  static Kernel* running;
  static std::vector<char> stacks(256 << 18);
  const auto run = [] {
    (*running)();
    ended[threadIdx.x] = true;
  };
  running = &kernel;
  gridDim = {across, down, 1};
  blockDim = {threads, 1, 1};
  for (int i = 0; i < across * down; i++) {
    blockIdx = {i % across, i / across, 0};
    for (Warp& warp : warps) warp.meet = {};
    block = {threads};
    for (int t = 0; t < threads; t++) {
      getcontext(&contexts[t]);
      contexts[t].uc_stack.ss_sp = &stacks[size_t(t) << 18];
      contexts[t].uc_stack.ss_size = 1 << 18;
      contexts[t].uc_link = &scheduler;
      makecontext(&contexts[t], static_cast<void (*)()>(run), 0);
      ended[t] = false;
    }
    for (bool left = true; left;) {
      left = false;
      for (int t = 0; t < threads; t++) {
        if (ended[t]) continue;
        left = true;
        threadIdx = {t, 0, 0};
        swapcontext(&scheduler, &contexts[t]);
      }
    }
  }
}
