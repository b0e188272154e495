// A row of one layer, stored, decoded and attended to by the kernels, against the definition in doubles. The constants and the kernels
// stand before this. Prints one line for each thing compared: its name and its relative distance.
#include "compare.h"

constexpr int LENGTH = 150, CHUNK = 70, HEADS_ALL = KV_HEADS * REPEATS, STRIDE = (HEADS_ALL + 2 * KV_HEADS) * D, SLOTS = LENGTH + 5;

static void say(const char* what, double distance) { std::printf("%s %.3e\n", what, distance); }

// Softmax attention of one query over `first` to `last`.
static void attention(const float* query, int head, const std::vector<float>& keys, const std::vector<float>& values, const std::vector<T>& sinks, int position,
                      double scale, double* out) {
  const int kv_head = head / REPEATS, first = WINDOW > 0 ? max(position + 1 - WINDOW, 0) : 0;
  std::vector<double> scores;
  double top = SINKS ? float(sinks[head]) : -1e300, sum = 0;
  for (int key = first; key <= position; key++) {
    double dot = 0;
    for (int e = 0; e < D; e++) dot += double(query[e]) * keys[(size_t(kv_head) * SLOTS + key) * D + e];
    scores.push_back(dot * scale);
    top = max(top, scores.back());
  }
  for (double& score : scores) sum += score = std::exp(score - top);
  if (SINKS) sum += std::exp(float(sinks[head]) - top);
  std::fill(out, out + D, 0);
  for (int key = first; key <= position; key++) {
    for (int e = 0; e < D; e++) out[e] += scores[key - first] / sum * values[(size_t(kv_head) * SLOTS + key) * D + e];
  }
}

int main() {
  std::mt19937 random(7);
  const auto number = [&] { return float(random() / 1073741824.0 - 2); };
  // One layer's tensors one behind the other.
  int before = 0, at[8] = {0};
  const auto tensor = [&](int token_bytes) {
    const int begin = before * PAGE;
    before += token_bytes;
    return begin;
  };
  const int bit_counts[2] = {K_BITS, V_BITS};
  for (int side = 0; side < 2; side++) {
    at[3 * side] = tensor(KV_HEADS * D * bit_counts[side] / 8);
    for (int plane = 1; plane < 3 && bit_counts[side] < 16; plane++) at[3 * side + plane] = tensor(KV_HEADS * D / 64 * 2);
  }
  constexpr int PAGES = (LENGTH + PAGE - 1) / PAGE;
  std::vector<std::vector<uint64_t>> pages(PAGES, std::vector<uint64_t>(size_t(before) * PAGE / 8 + 2));
  // The words of a step: see step.cu.
  std::vector<int> words(10);
  std::vector<int> positions, rows(LENGTH, 0), table, shares, queries;
  for (int i = 0; i < LENGTH; i++) positions.push_back(i);
  for (auto& page : pages) {
    const uint64_t address = reinterpret_cast<uint64_t>(page.data());
    table.push_back(int(address)), table.push_back(int(address >> 32));
  }
  // The last token, in three shares, the last of which may be empty.
  const int position = LENGTH - 1, first = WINDOW > 0 ? max(position + 1 - WINDOW, 0) : 0, each = ((position + 1 - first) / 2 + 15) / 16 * 16;
  for (int share = 0; share < 3; share++) {
    const int begin = min(first + share * each, LENGTH);
    shares.insert(shares.end(), {0, 0, begin, min(begin + each, LENGTH)});
  }
  queries = {0, 0, 3, 0};
  words[0] = put(words, positions), words[1] = put(words, rows), words[2] = words[3] = put(words, table), words[4] = PAGES, words[8] = put(words, shares), words[9] = put(words, queries);
  const unsigned long long step[1] = {reinterpret_cast<unsigned long long>(words.data())};

  std::vector<T> x(size_t(LENGTH) * STRIDE), turned(size_t(LENGTH) * HEADS_ALL * D), q_weight(D), k_weight(D), sinks(HEADS_ALL);
  for (auto* list : {&x, &q_weight, &k_weight, &sinks}) {
    for (T& element : *list) element = T(number());
  }
  std::vector<float> rates(TURNED / 2 + 1);
  for (int i = 0; i < TURNED / 2; i++) rates[i] = std::pow(10000.f, -2.f * i / TURNED);
  const float turn[2] = {0.5, 1.1}, eps[1] = {1e-5}, scale = 0.2, factor[1] = {scale};
  launch(LENGTH, (HEADS_ALL + 2 * KV_HEADS + 3) / 4, 128, [&] {
    store(step, at, x.data(), x.data(), x.data(), q_weight.data(), k_weight.data(), rates.data(), turn, eps, turned.data());
  });

  // By its definition: heads of queries and keys normalized, weighed and turned.
  const auto head_of = [&](int token, int vector) {
    std::vector<double> head(D);
    double squares = 0;
    for (int e = 0; e < D; e++) {
      head[e] = float(x[size_t(token) * STRIDE + vector * D + e]);
      squares += head[e] * head[e];
    }
    if (vector >= HEADS_ALL + KV_HEADS) return head;
    const auto& weight = vector < HEADS_ALL ? q_weight : k_weight;
    for (int e = 0; NORM && e < D; e++) head[e] *= float(weight[e]) / std::sqrt(squares / D + eps[0]);
    for (int i = 0; i < TURNED / 2; i++) {
      const int a = NEIGHBOURS ? 2 * i : i, b = NEIGHBOURS ? 2 * i + 1 : i + TURNED / 2;
      const double angle = token * double(turn[0]) * rates[i], left = head[a] * turn[1], right = head[b] * turn[1];
      head[a] = left * std::cos(angle) - right * std::sin(angle);
      head[b] = left * std::sin(angle) + right * std::cos(angle);
    }
    return head;
  };
  std::vector<float> found;
  std::vector<double> expected;
  for (int token = 0; token < LENGTH; token++) {
    for (int head = 0; head < HEADS_ALL; head++) {
      const auto wanted = head_of(token, head);
      expected.insert(expected.end(), wanted.begin(), wanted.end());
    }
  }
  for (T element : turned) found.push_back(float(element));
  say("queries", distance(found, expected));

  std::vector<__half> keys(size_t(KV_HEADS) * SLOTS * D, {0x7e00}), values = keys;
  const int span[4] = {0, 0, LENGTH, SLOTS};
  launch((LENGTH * 2 * D / 8 + 255) / 256, KV_HEADS, 256, [&] { gather(step, at, span, turned.data(), keys.data(), values.data()); });
  std::vector<float> decoded[2];
  for (int side = 0; side < 2; side++) {
    found.clear(), expected.clear();
    for (__half element : side == 0 ? keys : values) decoded[side].push_back(__half2float(element));
    for (int token = 0; token < LENGTH; token++) {
      for (int head = 0; head < KV_HEADS; head++) {
        const auto wanted = head_of(token, HEADS_ALL + side * KV_HEADS + head);
        for (int e = 0; e < D; e++) {
          found.push_back(decoded[side][(size_t(head) * SLOTS + token) * D + e]);
          expected.push_back(wanted[e]);
        }
      }
    }
    say(side == 0 ? "keys" : "values", distance(found, expected));
  }

  // One query, over codes.
  const size_t last = size_t(LENGTH - 1) * HEADS_ALL * D;
  const std::vector<T> query(turned.begin() + last, turned.end());
  std::vector<float> mixed(3 * HEADS_ALL * D, NAN), weights(3 * HEADS_ALL * 2, NAN);
  std::vector<T> attended(size_t(CHUNK) * HEADS_ALL * D, T(NAN));
  launch(3, KV_HEADS * SPLIT, 128, [&] { part(step, at, query.data(), factor, query.data(), mixed.data(), weights.data()); });
  launch(1, HEADS_ALL, D, [&] { join_shares(step, at, sinks.data(), mixed.data(), weights.data(), attended.data()); });
  std::vector<double> one(HEADS_ALL * D);
  found.clear();
  for (int head = 0; head < HEADS_ALL; head++) {
    std::vector<float> own;
    for (int e = 0; e < D; e++) own.push_back(float(query[head * D + e])), found.push_back(float(attended[head * D + e]));
    attention(own.data(), head, decoded[0], decoded[1], sinks, LENGTH - 1, scale, &one[head * D]);
  }
  say("one", distance(found, one));

  // A chunk, over decoded keys, as they lie behind the first that it sees.
  const int begin = LENGTH - CHUNK, origin = WINDOW > 0 ? max(begin + 1 - WINDOW, 0) : 0;
  const int chunk[6] = {begin, CHUNK, begin, origin, SLOTS - origin, WINDOW};
  std::vector<__half> seen[2];
  for (int side = 0; side < 2; side++) {
    for (int head = 0; head < KV_HEADS; head++) {
      const auto from = (side == 0 ? keys : values).begin() + (size_t(head) * SLOTS + origin) * D;
      seen[side].insert(seen[side].end(), from, from + size_t(SLOTS - origin) * D);
    }
  }
  launch((CHUNK + 127) / 128, HEADS_ALL, 256, [&] { flash(turned.data(), seen[0].data(), seen[1].data(), chunk, factor, sinks.data(), attended.data()); });
  found.clear();
  expected.assign(size_t(CHUNK) * HEADS_ALL * D, 0);
  for (int token = 0; token < CHUNK; token++) {
    for (int head = 0; head < HEADS_ALL; head++) {
      std::vector<float> own;
      const size_t place = (size_t(token) * HEADS_ALL + head) * D;
      for (int e = 0; e < D; e++) own.push_back(float(turned[(size_t(begin + token) * HEADS_ALL + head) * D + e]));
      attention(own.data(), head, decoded[0], decoded[1], sinks, begin + token, scale, &expected[place]);
    }
  }
  for (T element : attended) found.push_back(float(element));
  say("chunk", distance(found, expected));
}
