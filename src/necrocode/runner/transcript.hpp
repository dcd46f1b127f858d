// Transcript: what a model was asked and what it answered, call by call, for the people who read a
// run afterwards. In a file that is masked and bounded as it is written, so that a killed run
// leaves what it paid for; what is too much is left out, and said to be.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "necrocode/base/file.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/masking.hpp"

namespace necrocode::runner {

/// Not thread-safe. A write that fails (a full disk) ends the transcript, never the run.
class Transcript {
 public:
  /// JSON lines in `file`: {"call","prompt"}, {"call","answer"} or {"call","error"}; made, or
  /// emptied, with the first of them. `masker` lives longer.
  Transcript(std::filesystem::path file, const Masker& masker)
      : path_(std::move(file)), masker_(masker) {}

  void asked(std::string_view prompt);
  void answered(const std::string& model, std::string_view text, const Json& usage);
  /// No answer that could be used, and why.
  void failed(std::string_view reason);

  bool empty() const { return written_ == 0; }

 private:
  std::string clean(std::string_view text) const;
  void add(std::string_view member, const Json& value);

  void write(std::string_view text);

  std::filesystem::path path_;
  const Masker& masker_;
  FileDescriptor file_;
  std::size_t written_ = 0;
  int call_ = 0;
  bool closed_ = false;  ///< full, or broken
};

}  // namespace necrocode::runner
