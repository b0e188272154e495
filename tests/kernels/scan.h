// A recurrent layer's steps over two rows, in two steps of few and of many tokens, against the definition in doubles. Prints as check.h does.
#include "compare.h"


int main() {
  constexpr int TAIL = TAPS - 1, STATE = VALUE_HEADS * K * V, ROWS = 2, OUT = VALUE_HEADS * V, LAYER = 1;
  static_assert(WIDTH == 2 * KEY_HEADS * K + VALUE_HEADS * V && BEGIN == TAIL * WIDTH * sizeof(T));
  std::mt19937 random(5);
  const auto numbers = [&](size_t count) {
    std::vector<T> list(count);
    for (T& element : list) element = T(float(random() / 1073741824.0 - 2));
    return list;
  };
  const auto weight = numbers((TAPS + BIASED) * WIDTH), bias = numbers(VALUE_HEADS), norm = numbers(MAMBA ? OUT : V);
  std::vector<float> rate(VALUE_HEADS);
  for (float& x : rate) x = float(random() / 4294967296.0) - 1;
  const float eps[1] = {1e-6};
  // Skips, and the bounds of steps.
  std::vector<float> own(VALUE_HEADS + 2);
  for (float& x : own) x = float(random() / 4294967296.0);
  own[VALUE_HEADS] = 0.3, own[VALUE_HEADS + 1] = 1.5;
  // What a row has seen, and its state by the definition.
  std::vector<std::vector<double>> seen(ROWS), states(ROWS, std::vector<double>(STATE));
  std::vector<std::vector<uint64_t>> pages[2];
  for (auto& side : pages) side.assign(ROWS, std::vector<uint64_t>((BEGIN + STATE * 4) / 8 + 1));
  std::vector<double> mixed_expected, read_expected, gated_expected;
  std::vector<float> mixed_found, read_found, gated_found;
  const int lengths[2][ROWS] = {{40, 1}, {2, 70}};
  for (int number = 0; number < 2; number++) {
    const int* length = lengths[number];
    const int count = length[0] + length[1];
    std::vector<int> words(10), rows;
    for (int token = 0; token < count; token++) rows.push_back(token >= length[0]);
    std::vector<int> addresses;
    for (int layer = 0; layer <= LAYER; layer++) {
      for (int row = 0; row < ROWS; row++) {
        for (int side = 0; side < 2; side++) {
          const uint64_t address = layer == LAYER ? reinterpret_cast<uint64_t>(pages[(number + side) % 2][row].data()) : 0;
          addresses.push_back(int(address)), addresses.push_back(int(address >> 32));
        }
      }
    }
    words[1] = put(words, rows), words[5] = put(words, {0, length[0], length[0], length[1]}), words[6] = put(words, addresses), words[7] = ROWS;
    const unsigned long long step[1] = {reinterpret_cast<unsigned long long>(words.data())};
    const int at[1] = {LAYER};
    const auto x = numbers(size_t(count) * WIDTH), decays = numbers(count * VALUE_HEADS), strengths = numbers(count * VALUE_HEADS),
               gate = numbers(size_t(count) * OUT);
    std::vector<float> mixed(size_t(count) * WIDTH, NAN), read(size_t(count) * OUT, NAN);
    std::vector<T> y(size_t(count) * OUT, T(NAN));
    launch((WIDTH + UNIT - 1) / UNIT, count, (UNIT + 31) / 32 * 32, [&] { conv(step, at, x.data(), weight.data(), mixed.data()); });
    launch(VALUE_HEADS * ((V + 31) / 32), ROWS, 128,
           [&] { rule(step, at, mixed.data(), decays.data(), strengths.data(), rate.data(), bias.data(), own.data(), read.data()); });
    if (MAMBA) launch(KEY_HEADS, count, 64, [&] { opened_norm(read.data(), gate.data(), norm.data(), eps, y.data()); });
    else launch(VALUE_HEADS, count, (V + 31) / 32 * 32, [&] { gated_norm(read.data(), gate.data(), norm.data(), eps, y.data()); });
    mixed_found.insert(mixed_found.end(), mixed.begin(), mixed.end());
    read_found.insert(read_found.end(), read.begin(), read.end());
    for (T element : y) gated_found.push_back(float(element));
    for (int token = 0; token < count; token++) {
      const int row = rows[token];
      auto& past = seen[row];
      for (int e = 0; e < WIDTH; e++) past.push_back(float(x[size_t(token) * WIDTH + e]));
      std::vector<double> vector(WIDTH);
      for (int e = 0; e < WIDTH; e++) {
        double sum = BIASED ? float(weight[TAPS * WIDTH + e]) : 0;
        for (int tap = 0; tap < TAPS; tap++) {
          const int from = int(past.size()) / WIDTH - TAPS + tap;
          if (from >= 0) sum += past[size_t(from) * WIDTH + e] * float(weight[tap * WIDTH + e]);
        }
        vector[e] = sum / (1 + std::exp(-sum));
      }
      for (int unit = 0; unit < UNITS; unit++) {
        double squares = 1e-6;
        for (int e = 0; e < K; e++) squares += vector[unit * K + e] * vector[unit * K + e];
        for (int e = 0; e < K; e++) vector[unit * K + e] /= std::sqrt(squares * (unit < KEY_HEADS ? K : 1));
      }
      mixed_expected.insert(mixed_expected.end(), vector.begin(), vector.end());
      std::vector<double> squares(KEY_HEADS);
      for (int head = 0; head < VALUE_HEADS; head++) {
        const int group = head / (VALUE_HEADS / KEY_HEADS);
        const double* query = &vector[(MAMBA ? OUT + KEY_HEADS * K : 0) + group * K];
        const double* key = &vector[(MAMBA ? OUT : KEY_HEADS * K) + group * K];
        const double* value = &vector[(MAMBA ? 0 : 2 * KEY_HEADS * K) + head * V];
        double length = std::log1p(std::exp(float(decays[token * VALUE_HEADS + head]) + float(bias[head])));
        if (MAMBA) length = std::min(std::max(length, double(own[VALUE_HEADS])), double(own[VALUE_HEADS + 1]));
        const double decay = std::exp(-std::exp(double(rate[head])) * length);
        const double strength = MAMBA ? length : 1 / (1 + std::exp(-double(float(strengths[token * VALUE_HEADS + head]))));
        double* state = &states[row][size_t(head) * K * V];
        std::vector<double> out(V);
        double of_head = 0;
        for (int v = 0; v < V; v++) {
          double known = 0;
          for (int k = 0; k < K; k++) known += (state[k * V + v] *= decay) * key[k];
          if (MAMBA) known = 0;
          for (int k = 0; k < K; k++) out[v] += (state[k * V + v] += key[k] * strength * (value[v] - known)) * query[k];
          if (MAMBA) out[v] += own[head] * value[v];
          of_head += out[v] * out[v];
        }
        for (int v = 0; v < V; v++) {
          const double gated = float(gate[size_t(token) * OUT + head * V + v]), open = gated / (1 + std::exp(-gated));
          read_expected.push_back(out[v]);
          if (MAMBA) gated_expected.push_back(out[v] * open), squares[group] += out[v] * open * out[v] * open;
          else gated_expected.push_back(out[v] / std::sqrt(of_head / V + eps[0]) * float(norm[v]) * open);
        }
      }
      for (int e = 0; e < OUT && MAMBA; e++) {
        gated_expected[gated_expected.size() - OUT + e] *= float(norm[e]) / std::sqrt(squares[e / GROUP] / GROUP + eps[0]);
      }
    }
  }
  std::vector<float> kept;
  std::vector<double> kept_expected;
  for (int row = 0; row < ROWS; row++) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(pages[0][row].data());
    const auto* tail = reinterpret_cast<const T*>(bytes);
    const auto* state = reinterpret_cast<const float*>(bytes + BEGIN);
    for (int i = 0; i < TAIL * WIDTH; i++) kept.push_back(float(tail[i])), kept_expected.push_back(seen[row][seen[row].size() - TAIL * WIDTH + i]);
    for (int i = 0; i < STATE; i++) kept.push_back(state[i]), kept_expected.push_back(states[row][i]);
  }
  std::printf("mixed %.3e\nread %.3e\ngated %.3e\nkept %.3e\n", distance(mixed_found, mixed_expected), distance(read_found, read_expected),
              distance(gated_found, gated_expected), distance(kept, kept_expected));
}
