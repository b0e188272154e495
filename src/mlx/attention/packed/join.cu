// Joins the shares of each query: block (query, head), a thread for each of the D elements. See part.cu for the shapes.
const int head = blockIdx.y, heads = gridDim.y, shares = span[3];
const long long row = static_cast<long long>(blockIdx.x) * shares * heads + head;
float top = NOTHING, sum = 0, mix = 0;
for (int s = 0; s < shares; s++) top = fmaxf(top, weights[(row + s * heads) * 2]);
for (int s = 0; s < shares; s++) {
  const float own = weights[(row + s * heads) * 2];
  const float weight = own == NOTHING ? 0 : __expf(own - top);
  sum += weight * weights[(row + s * heads) * 2 + 1];
  mix += weight * mixed[(row + s * heads) * D + threadIdx.x];
}
attended[(static_cast<long long>(blockIdx.x) * heads + head) * D + threadIdx.x] = static_cast<T>(mix / sum);
