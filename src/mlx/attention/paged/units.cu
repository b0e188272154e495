// The matrix units and copies into shared memory: what only a device does. A test puts the same in plain C++ in its place.

// sums [16, 8] += a [16, 16] b [16, 8], all spread over a warp as `mma.m16n8k16` has them.
__device__ inline void multiply_halves(float* sums, const unsigned* a, unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// sums [8, 8] += a [8, 16] b [16, 8]: the upper half of the same.
__device__ inline void multiply_upper(float* sums, unsigned a0, unsigned a2, unsigned b0, unsigned b1) {
  float unused[2];
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%5}, {%7,%8}, {%0,%1,%9,%9};"
      : "+f"(sums[0]), "+f"(sums[1]), "=f"(unused[0]), "=f"(unused[1])
      : "r"(a0), "r"(0), "r"(a2), "r"(b0), "r"(b1), "f"(0.f));
}

// Four matrices [8, 8] of halves out of shared memory, whose rows lie at the addresses of eight lanes each; as they lie, and turned.
__device__ inline void load_four(unsigned* to, unsigned at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at));
}
__device__ inline void load_four_across(unsigned* to, unsigned at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at));
}

// Begins to copy 16 bytes into shared memory, zeros where there is nothing; ends a set of copies; waits until at most LEFT sets are under way.
__device__ inline void begin_copy(unsigned to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0));
}
__device__ inline void end_set() { asm volatile("cp.async.commit_group;"); }
template <int LEFT>
__device__ inline void wait_for_sets() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT)); }

// The address of shared memory.
__device__ inline unsigned shared_address(const void* memory) { return static_cast<unsigned>(__cvta_generic_to_shared(memory)); }
