#include "necrocode/llm/prompt_bound.hpp"

#include <algorithm>

#include "necrocode/base/limits.hpp"
#include "necrocode/llm/completion.hpp"

namespace necrocode::llm {
namespace {

constexpr std::size_t kBodies = 4;  // an agent's own model, and those it asks for small things
constexpr std::size_t kBodyBytes = 4 * limits::kMiB;
// What services add to a prompt by themselves (Anthropic's for tools takes up to 700), and what
// texts that are joined anew may take more.
constexpr std::int64_t kAddedTokens = 1'000;
// What a service did not read the last time, it may read now: no usual text has more bytes a token.
constexpr std::int64_t kBytesPerTokenMax = 8;
// The longest prompt that usual models read: what a request only refers to may be as long.
constexpr std::int64_t kContextTokens = 1'048'576;

// Bytes of `text` outside of what it begins and ends with in common with `before`.
std::size_t new_bytes(std::string_view text, std::string_view before) {
  const auto same = std::mismatch(text.begin(), text.end(), before.begin(), before.end());
  text.remove_prefix(static_cast<std::size_t>(same.first - text.begin()));
  before.remove_prefix(static_cast<std::size_t>(same.second - before.begin()));
  const auto end = std::mismatch(text.rbegin(), text.rend(), before.rbegin(), before.rend());
  return static_cast<std::size_t>(text.rend() - end.first);
}

}  // namespace

std::int64_t PromptBound::tokens_max(const std::string& model, std::string_view body,
                                     bool refers_outside) const {
  auto tokens = static_cast<std::int64_t>(body.size());
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = last_.find(model); found != last_.end()) {
      const Counted& last = found->second;
      const auto fresh = static_cast<std::int64_t>(new_bytes(body, last.body));
      const std::int64_t known = std::max(last.tokens, (tokens - fresh) / kBytesPerTokenMax);
      tokens = std::min(tokens, known + fresh);
    }
  }
  return tokens + kAddedTokens + (refers_outside ? kContextTokens : 0);
}

std::int64_t PromptBound::estimate(const std::string& model, std::string_view body) const {
  const std::lock_guard lock(mutex_);
  const auto found = last_.find(model);
  if (found == last_.end() || found->second.body.empty()) return estimate_tokens(body.size());
  const auto bytes = static_cast<double>(found->second.body.size());
  return static_cast<std::int64_t>(static_cast<double>(found->second.tokens) *
                                   (static_cast<double>(body.size()) / bytes));
}

void PromptBound::counted(const std::string& model, std::string_view body,
                          std::int64_t prompt_tokens) {
  const std::lock_guard lock(mutex_);
  if (body.size() > kBodyBytes) return;
  if (last_.size() >= kBodies && !last_.contains(model)) {
    last_.erase(std::min_element(last_.begin(), last_.end(), [](const auto& a, const auto& b) {
      return a.second.used < b.second.used;
    }));
  }
  last_[model] = {std::string(body), prompt_tokens, ++uses_};
}

}  // namespace necrocode::llm
