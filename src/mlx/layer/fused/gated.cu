// act(gate) * up: block (elements, token). x [tokens, 2 * WIDTH]: gate, then up; y [tokens, WIDTH], of type T. Silu, or with GELU its
// approximation by tanh.
const int e = blockIdx.x * blockDim.x + threadIdx.x;
if (e >= WIDTH) return;
const T* own = x + static_cast<long long>(blockIdx.y) * 2 * WIDTH;
const float gate = static_cast<float>(own[e]), up = static_cast<float>(own[WIDTH + e]);
float open;
if constexpr (GELU) {
  open = 0.5f * gate * (1.f + tanhf(0.7978845608028654f * (gate + 0.044715f * gate * gate * gate)));
} else {
  open = gate / (1.f + __expf(-gate));
}
y[static_cast<long long>(blockIdx.y) * WIDTH + e] = static_cast<T>(open * up);
