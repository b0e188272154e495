// Included ahead of every mlx-c file, because mlx-c uses std::format without including its header.
//
// GCC 12 has no <format> at all. There, a stand-in knows the one thing mlx-c needs: plain `{}` fields, filled in order
// with anything a stream can print.
#pragma once

#if __has_include(<format>)
#include <format>
#else
#include <sstream>
#include <string>
#include <string_view>

namespace std {

template <typename... Values>
string format(string_view pattern, const Values&... values) {
  ostringstream out;
  // Prints the text up to the next field, then the value in place of the field.
  [[maybe_unused]] auto fill = [&](const auto& value) {
    const auto field = pattern.find("{}");
    out << pattern.substr(0, field);
    if (field == string_view::npos) {
      pattern = {};
      return;
    }
    out << value;
    pattern.remove_prefix(field + 2);
  };
  (fill(values), ...);
  out << pattern;
  return out.str();
}

} // namespace std
#endif
