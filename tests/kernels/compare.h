// What the checks have in common: relative distances, and lists among a step's words (see step.cu).

template <class Number>
static double distance(const std::vector<Number>& found, const std::vector<double>& expected) {
  double wrong = 0, all = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    wrong += (float(found[i]) - expected[i]) * (float(found[i]) - expected[i]);
    all += expected[i] * expected[i];
  }
  return std::sqrt(wrong / all);
}

// Puts a list behind the others, at a multiple of 16 bytes. Returns its place.
static int put(std::vector<int>& words, const std::vector<int>& list) {
  words.resize((words.size() + 3) / 4 * 4);
  const int place = int(words.size());
  words.insert(words.end(), list.begin(), list.end());
  return place;
}
