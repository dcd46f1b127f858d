#include "necrocode/llm/completion.hpp"

#include <algorithm>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"

namespace necrocode::llm {
namespace {

constexpr std::size_t kBytesPerToken = 4;

// Why it cannot be used; empty when it can.
std::string defect(const Completion& answer, const ChatRequest& request) {
  if (answer.finish == Finish::kFiltered) return "the service's content filter took it away";
  if (answer.finish == Finish::kRefused || !answer.refusal.empty()) return "the model refused";
  if (answer.finish == Finish::kLength) return "it was cut off at the token limit";
  if (answer.content.empty() && answer.tool_calls.empty()) {
    return answer.null_content ? "its content is null" : "its content is empty";
  }
  if (answer.content.empty() && request.tools.empty()) return "it calls tools and says nothing";
  return {};
}

// Arguments that are left out are none.
std::string bad_arguments(std::vector<ToolCall>& calls) {
  for (std::size_t i = 0; i < calls.size(); ++i) {
    ToolCall& call = calls[i];
    if (call.name.empty()) return "it calls a tool without a name";
    // Some local services give none; the tool's answer needs one.
    if (call.id.empty()) call.id = "call_" + std::to_string(i);
    if (call.arguments.empty()) call.arguments = "{}";
    const auto arguments = Json::try_parse(call.arguments);
    if (!arguments || !arguments->is_object()) {
      return "it calls \"" + call.name + "\" with arguments that are no JSON object";
    }
  }
  return {};
}

[[noreturn]] void not_usable(const std::string& reason, const Completion& answer) {
  ErrorInfo info;
  info.detail = answer.refusal.empty() ? answer.content : answer.refusal;
  info.partial = answer.content;
  throw ImplementationError("the model's answer is not usable: " + reason, std::move(info));
}

}  // namespace

std::int64_t estimate_tokens(std::size_t bytes) {
  return static_cast<std::int64_t>(bytes / kBytesPerToken + (bytes % kBytesPerToken != 0));
}

std::int64_t estimate_prompt_tokens(const ChatRequest& request) {
  std::size_t bytes = 0;
  for (const Message& message : request.messages) {
    bytes += message.role.size() + message.content.size();
    for (const ToolCall& call : message.tool_calls)
      bytes += call.name.size() + call.arguments.size();
  }
  for (const Tool& tool : request.tools) bytes += tool.name.size() + tool.description.size();
  return estimate_tokens(bytes);
}

Usage usage_of(const Completion& completion, const ChatRequest& request) {
  const TokenCounts& counts = completion.counts;
  std::size_t bytes = completion.content.size() + completion.reasoning.size();
  for (const ToolCall& call : completion.tool_calls) bytes += call.arguments.size();
  // Nothing comes of nothing: a count of zero is one that was not made.
  const bool counted =
      counts.prompt.value_or(0) > 0 && (counts.completion.value_or(0) > 0 || bytes == 0);
  Usage usage;
  usage.estimated = !counted;
  usage.prompt_tokens =
      counts.prompt.value_or(0) > 0 ? *counts.prompt : estimate_prompt_tokens(request);
  usage.completion_tokens =
      counts.completion.value_or(0) > 0 ? *counts.completion : estimate_tokens(bytes);
  usage.total_tokens =
      std::max(counts.total.value_or(0), usage.prompt_tokens + usage.completion_tokens);
  usage.cached_tokens = counts.cached;
  usage.cache_write_tokens = counts.cache_write;
  usage.reasoning_tokens = counts.reasoning;
  return usage;
}

ChatResponse to_response(Completion completion, const ChatRequest& request) {
  if (completion.finish == Finish::kFailed) {
    ErrorInfo info;
    info.detail = info.partial = completion.content;
    info.end = CallEnd::kPermanent;
    throw InvalidResponse("the model service's answer is not a completion: it ended with \"" +
                              completion.finish_reason + "\"",
                          std::move(info));
  }
  std::string reason = defect(completion, request);
  if (reason.empty()) reason = bad_arguments(completion.tool_calls);
  if (!reason.empty()) not_usable(reason, completion);
  ChatResponse response;
  response.usage = usage_of(completion, request);
  response.content = std::move(completion.content);
  response.reasoning = std::move(completion.reasoning);
  response.tool_calls = std::move(completion.tool_calls);
  response.model = std::move(completion.model);
  response.finish_reason = std::move(completion.finish_reason);
  return response;
}

void not_a_completion(const std::string& reason, std::string_view body, int status) {
  ErrorInfo info;
  // Enough for a message, with room for a secret that masking is to see whole.
  info.detail = body.substr(0, 8 * limits::kModelMessageBytes);
  info.status = status;
  info.end = CallEnd::kPermanent;
  throw InvalidResponse("the model service's answer is not a completion: " + reason,
                        std::move(info));
}

}  // namespace necrocode::llm
