// Writes numbers as f32 where the host reads them: a thread an element. x [count], of type T; to [1]: an address of page-locked memory.
// done [1]: made when all are written.
const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
if (i < x_shape[0]) reinterpret_cast<float*>(to[0])[i] = static_cast<float>(x[i]);
if (i == 0) done[0] = 1;
