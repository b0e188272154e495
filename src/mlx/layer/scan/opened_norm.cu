// What a state was read as, gated and then divided by its root mean square in each group, and weighed: block (group, token), V elements.
//
// x [tokens, groups * V], f32; gate the same, of type T; weight [groups * V], T; eps [1], f32. y as gate. THREADS of a block.
const int element = blockIdx.x * V;
const long long place = static_cast<long long>(blockIdx.y) * gridDim.x * V + element;
const auto opened = [&](int e) {
  const float open = static_cast<float>(gate[place + e]);
  return x[place + e] * (open / (1.f + __expf(-open)));
};
float squares = 0;
for (int e = threadIdx.x; e < V; e += THREADS) squares += opened(e) * opened(e);
const float factor = rsqrtf(block_sum<THREADS>(squares) / V + eps[0]);
for (int e = threadIdx.x; e < V; e += THREADS) y[place + e] = static_cast<T>(opened(e) * factor * static_cast<float>(weight[element + e]));
