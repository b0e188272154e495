// What a step tells every kernel, at the address step[0]: 32-bit words, in whose beginning lie the places of what follows.
struct StepWords {
  const int* words;
  __device__ explicit StepWords(const unsigned long long* step) : words(reinterpret_cast<const int*>(step[0])) {}
  // Of each new token: its position, and its row.
  __device__ const int* positions() const { return words + words[0]; }
  __device__ const int* rows() const { return words + words[1]; }
  // The addresses of a row's pages in one part: page n holds the positions from n * PAGE on.
  __device__ const unsigned long long* table(int part, int row) const {
    return reinterpret_cast<const unsigned long long*>(words + words[2 + part]) + static_cast<long long>(row) * words[4];
  }
  // Of each row: its first new token, and how many it has.
  __device__ const int2* runs() const { return reinterpret_cast<const int2*>(words + words[5]); }
  // The addresses of what recurrent layer number `layer` keeps of a row: before the step, and after it.
  __device__ const unsigned long long* state(int layer, int row) const {
    return reinterpret_cast<const unsigned long long*>(words + words[6]) + (static_cast<long long>(layer) * words[7] + row) * 2;
  }
  // For queries with mask `mask`: shares as (token, row, first position, position behind the last), and queries as
  // (token, first share, number of shares, 0).
  __device__ const int4* shares(int mask) const { return reinterpret_cast<const int4*>(words + words[8 + 2 * mask]); }
  __device__ const int4* queries(int mask) const { return reinterpret_cast<const int4*>(words + words[9 + 2 * mask]); }
};
