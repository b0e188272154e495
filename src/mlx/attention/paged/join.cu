// Joins the shares of each query: block (query, head), a thread for each of the D elements. See part.cu for the shapes.
//
// at: as there; sinks [heads]: of each head the score of a key whose value is 0, where SINKS. attended [queries, heads * D], of type T.
const int head = blockIdx.y, heads = gridDim.y;
const int4 asked = StepWords(step).queries(at[7])[blockIdx.x];
const long long first = static_cast<long long>(asked.y) * heads + head;
float top = NOTHING, sum = 0, mix = 0;
for (int s = 0; s < asked.z; s++) top = fmaxf(top, weights[(first + s * heads) * 2]);
for (int s = 0; s < asked.z; s++) {
  const float own = weights[(first + s * heads) * 2];
  const float weight = own == NOTHING ? 0 : exp2f(own - top);
  sum += weight * weights[(first + s * heads) * 2 + 1];
  mix += weight * mixed[(first + s * heads) * D + threadIdx.x];
}
if constexpr (SINKS) sum += exp2f(static_cast<float>(sinks[head]) * 1.4426950408889634f - top);
attended[(static_cast<long long>(blockIdx.x) * heads + head) * D + threadIdx.x] = static_cast<T>(mix / sum);
