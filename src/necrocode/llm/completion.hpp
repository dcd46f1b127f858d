// Completion: a model's answer in no dialect's words, as it comes together, and what is made of it
// when it is whole. The dialects fill it; nothing else knows how it was spoken.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/llm/model.hpp"

namespace necrocode::llm {

/// What an answer's end means, whatever the service calls it.
enum class Finish {
  kNone,       ///< it has not ended, or did not say so: a stream that stops here broke off
  kStop,       ///< the model was done
  kToolCalls,  ///< done, and wants tools to be called
  kLength,     ///< cut off at the token limit
  kFiltered,   ///< taken away by a content filter
  kRefused,    ///< the model refused
  kFailed,     ///< the service failed in the middle, or ended it by a word that nobody knows
};

/// Of one answer: no service counts further. A million forged counts still fit into a sum.
inline constexpr std::int64_t kTokensMax = 1'000'000'000'000;

/// Counts as the service gave them; nothing where it gave none.
struct TokenCounts {
  std::optional<std::int64_t> prompt, completion, total;
  std::int64_t cached = 0, cache_write = 0, reasoning = 0;
  std::int64_t hour_cache_write = 0;  ///< of cache_write: kept for an hour
};

struct Completion {
  std::string model;
  std::string content;
  std::string reasoning;
  std::string refusal;  ///< the model's words, when it refused
  std::vector<ToolCall> tool_calls;
  bool null_content = false;  ///< it is null, not empty
  std::string finish_reason;  ///< as the service gave it
  Finish finish = Finish::kNone;
  TokenCounts counts;
};

/// The usage that the service counted; what it left out is estimated, and marked so.
Usage usage_of(const Completion& completion, const ChatRequest& request);
/// About four bytes a token: OpenAI's rule of thumb for English text and code.
std::int64_t estimate_tokens(std::size_t bytes);
std::int64_t estimate_prompt_tokens(const ChatRequest& request);

/// The answer of a whole completion. Throws ImplementationError when it cannot be used (cut off,
/// filtered, refused, null, empty, tool arguments that are no JSON object), InvalidResponse when
/// the service failed in it; with raw `detail` and `partial`: the caller masks and shortens them.
ChatResponse to_response(Completion completion, const ChatRequest& request);

/// A 2xx answer that is no completion: InvalidResponse with `reason`.
[[noreturn]] void not_a_completion(const std::string& reason, std::string_view body, int status);

}  // namespace necrocode::llm
