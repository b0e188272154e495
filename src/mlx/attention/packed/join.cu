// Joins the shares of one row: block (1, head), a thread for each of the D elements. See part.cu for the shapes.
const int head = blockIdx.y, heads = gridDim.y, shares = span[3];
float top = NOTHING, sum = 0, mix = 0;
for (int s = 0; s < shares; s++) top = fmaxf(top, weights[(s * heads + head) * 2]);
for (int s = 0; s < shares; s++) {
  const float own = weights[(s * heads + head) * 2];
  const float weight = own == NOTHING ? 0 : __expf(own - top);
  sum += weight * weights[(s * heads + head) * 2 + 1];
  mix += weight * mixed[(static_cast<long long>(s) * heads + head) * D + threadIdx.x];
}
attended[head * D + threadIdx.x] = static_cast<T>(mix / sum);
