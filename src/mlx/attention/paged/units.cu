// The matrix units, and tiles in shared memory whose rows are WIDTH halves: 16 bytes each, in places that eight rows share without conflicts.
#include <cuda_fp16.h>

// The maximum of no scores.
#define NOTHING (-__int_as_float(0x7f800000))

template <int WIDTH>
__device__ inline unsigned place(int row, int chunk) { return (row * (WIDTH / 8) + (chunk ^ (row & 7))) * 16; }
__device__ inline void load_four(unsigned* to, unsigned at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at));
}
__device__ inline void load_four_across(unsigned* to, unsigned at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at));
}
// sums [16, 8] += a [16, 16] b [16, 8].
__device__ inline void multiply_halves(float* sums, const unsigned* a, unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// Begins to copy 16 bytes into shared memory; zeros where there is nothing to copy.
__device__ inline void begin_copy(unsigned to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0));
}
__device__ inline unsigned pack(float a, float b) {
  const __half2 pair = __floats2half2_rn(a, b);
  return reinterpret_cast<const unsigned&>(pair);
}
