// What a state was read as, divided by its root mean square in each head, weighed and gated: block (head, token), V elements.
//
// x [tokens, heads * V], f32; gate the same, of type T; weight [V]; eps [1], f32. y as gate.
const int e = threadIdx.x;
const long long place = (static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x) * V + e;
const float own = e < V ? x[place] : 0.f;
const float squares = block_sum<(V + 31) / 32 * 32>(own * own);
if (e < V) {
  const float open = static_cast<float>(gate[place]);
  y[place] = static_cast<T>(own * rsqrtf(squares / V + eps[0]) * static_cast<float>(weight[e]) * (open / (1.f + __expf(-open))));
}
