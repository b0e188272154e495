// What a state was read as, divided by its root mean square in each head, weighed and gated: block (head, token), V elements.
//
// x [tokens, heads * V], f32; gate the same, of type T; weight [V]; eps [1], f32. y as gate.
__shared__ float of_warp[8];
const int e = threadIdx.x;
const long long place = (static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x) * V + e;
const float own = e < V ? x[place] : 0.f;
float squares = own * own;
#pragma unroll
for (int other = 16; other > 0; other /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, other);
if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = squares;
__syncthreads();
squares = 0;
for (int w = 0; w < blockDim.x / 32; w++) squares += of_warp[w];
if (e < V) {
  const float open = static_cast<float>(gate[place]);
  y[place] = static_cast<T>(own * rsqrtf(squares / V + eps[0]) * static_cast<float>(weight[e]) * (open / (1.f + __expf(-open))));
}
