// The sum of `x` over a block of THREADS threads, a multiple of 32. Every thread takes part, once in a kernel, and gets it.
template <int THREADS>
__device__ inline float block_sum(float x) {
  __shared__ float of_warp[THREADS / 32];
#pragma unroll
  for (int other = 16; other > 0; other /= 2) x += __shfl_xor_sync(0xffffffffu, x, other);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  x = 0;
#pragma unroll
  for (int w = 0; w < THREADS / 32; w++) x += of_warp[w];
  return x;
}
