// The small steps between products, against their definitions in doubles. Prints as check.h does.
#include "compare.h"


int main() {
  constexpr int TOKENS = 3;
  std::mt19937 random(3);
  const auto numbers = [&](size_t count) {
    std::vector<T> list(count);
    for (T& element : list) element = T(float(random() / 1073741824.0 - 2));
    return list;
  };
  const auto x = numbers(TOKENS * WIDTH), more = numbers(TOKENS * WIDTH), weight = numbers(WIDTH), both = numbers(TOKENS * 2 * WIDTH);
  std::vector<T> sum(TOKENS * WIDTH, T(NAN)), normed = sum, y = sum;
  const float eps[1] = {1e-5};
  launch(TOKENS, 1, 256, [&] { add_norm(x.data(), more.data(), weight.data(), eps, sum.data(), normed.data()); });
  launch((WIDTH + 255) / 256, TOKENS, 256, [&] { gated(both.data(), y.data()); });
  std::vector<double> sums, norms, gates;
  for (int token = 0; token < TOKENS; token++) {
    double squares = 0;
    for (int e = 0; e < WIDTH; e++) {
      sums.push_back(double(float(x[token * WIDTH + e])) + float(more[token * WIDTH + e]));
      squares += sums.back() * sums.back();
    }
    for (int e = 0; e < WIDTH; e++) {
      norms.push_back(sums[token * WIDTH + e] / std::sqrt(squares / WIDTH + eps[0]) * float(weight[e]));
      const double gate = float(both[token * 2 * WIDTH + e]), up = float(both[token * 2 * WIDTH + WIDTH + e]);
      const double wide = std::sqrt(2 / M_PI) * (gate + 0.044715 * gate * gate * gate);
      gates.push_back((GELU ? gate / 2 * (1 + std::tanh(wide)) : gate / (1 + std::exp(-gate))) * up);
    }
  }
  std::printf("sum %.3e\nnorm %.3e\ngated %.3e\n", distance(sum, sums), distance(normed, norms), distance(y, gates));
}
