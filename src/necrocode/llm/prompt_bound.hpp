// How many tokens a prompt can be at most, before a service has counted them.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace necrocode::llm {

/// Of one run. A token is at least a byte, so a request's bytes are a bound; of a conversation that
/// goes on, only what is new in it is counted so, and the rest as the service did the last time,
/// but with a token for eight bytes at least. Keeps the last answered body of a few models (`model`
/// names one with its provider). Thread-safe.
class PromptBound {
 public:
  /// `refers_outside`: see MeteredRequest.
  std::int64_t tokens_max(const std::string& model, std::string_view body,
                          bool refers_outside) const;
  /// What it will be, about.
  std::int64_t estimate(const std::string& model, std::string_view body) const;
  /// The service counted so many in it.
  void counted(const std::string& model, std::string_view body, std::int64_t prompt_tokens);

 private:
  struct Counted {
    std::string body;
    std::int64_t tokens = 0;
    std::uint64_t used = 0;
  };
  mutable std::mutex mutex_;
  std::map<std::string, Counted, std::less<>> last_;  // by model
  std::uint64_t uses_ = 0;
};

}  // namespace necrocode::llm
