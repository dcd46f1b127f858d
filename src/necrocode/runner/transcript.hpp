// Transcript: what a model was asked and what it answered, call by call, for the people who read a
// run afterwards. Masked as it is taken; bounded: what is too much is left out, and said to be.
#pragma once

#include <string>
#include <string_view>

#include "necrocode/base/json.hpp"
#include "necrocode/base/masking.hpp"

namespace necrocode::runner {

/// Not thread-safe.
class Transcript {
 public:
  /// `masker` lives longer.
  explicit Transcript(const Masker& masker) : masker_(masker) {}

  void asked(std::string_view prompt);
  void answered(const std::string& model, std::string_view text, const Json& usage);
  /// No answer that could be used, and why.
  void failed(std::string_view reason);

  bool empty() const { return lines_.empty(); }
  /// JSON lines: {"call","prompt"}, {"call","answer"} or {"call","error"}.
  const std::string& text() const { return lines_; }

 private:
  std::string clean(std::string_view text) const;
  void add(std::string_view member, const Json& value);

  const Masker& masker_;
  std::string lines_;
  int call_ = 0;
  bool full_ = false;
};

}  // namespace necrocode::runner
