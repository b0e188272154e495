// The keys and values of some of a row's tokens, decoded.
//
// Block (tokens, key head), a thread eight elements. K_WIDTH and V_WIDTH elements of a vector, multiples of 8; K_BITS, V_BITS and PAGE as
// in part.cu; T half or float.
// step, at: see step.cu and part.cu; span [4]: the row, the first position, the position behind the last, slots of a result; order: as in
// part.cu.
// keys [kv heads, slots, K_WIDTH], values [kv heads, slots, V_WIDTH]: of the slots behind the last position nothing is written.
constexpr int EIGHTS = (K_WIDTH + V_WIDTH) / 8;
const int from = span[1], to = span[2], head = blockIdx.y;
const long long index = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
const int position = from + static_cast<int>(index / EIGHTS), eight = index % EIGHTS;
if (position >= to) return;
const StepWords now(step);
const unsigned char* page = reinterpret_cast<const unsigned char*>(now.table(at[6], span[0])[position / PAGE]);
const int slot = head * PAGE + position % PAGE;
const long long row = static_cast<long long>(head) * span[3] + position - from;
float x[8];
if (eight < K_WIDTH / 8) {
  decode_eight<K_BITS, K_WIDTH>(page + at[0], page + at[1], page + at[2], slot, eight, x);
  write_eight(keys + row * K_WIDTH + eight * 8, x);
} else {
  const int behind = eight - K_WIDTH / 8;
  decode_eight<V_BITS, V_WIDTH>(page + at[3], page + at[4], page + at[5], slot, behind, x);
  write_eight(values + row * V_WIDTH + behind * 8, x);
}
