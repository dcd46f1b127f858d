#include "necrocode/llm/openai_chat.hpp"

#include <algorithm>
#include <array>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/net/retry.hpp"

namespace necrocode::llm::openai_chat {
namespace {

// No service counts further; keeps sums of forged counts from overflowing.
constexpr std::int64_t kTokensMax = 1'000'000'000'000;
// English text and code; OpenAI's own rule of thumb.
constexpr std::size_t kBytesPerToken = 4;

bool contains_any(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::any_of(words.begin(), words.end(), [&](std::string_view word) {
    return text.find(word) != std::string_view::npos;
  });
}

bool is_one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

// `code` is a string at OpenAI and a number at others.
std::string word(const Json& value) {
  if (const auto text = value.as_string()) return std::string(*text);
  return value.is_int() ? value.dump() : std::string();
}

Json response_format(const Json& schema, Format format) {
  if (format == Format::kJsonObject) return Json::object({{"type", "json_object"}});
  return Json::object(
      {{"type", "json_schema"},
       {"json_schema", Json::object({{"name", "answer"}, {"strict", true}, {"schema", schema}})}});
}

std::int64_t estimate_tokens(std::size_t bytes) {
  return static_cast<std::int64_t>((bytes + kBytesPerToken - 1) / kBytesPerToken);
}

std::int64_t estimate_tokens(const std::vector<Message>& messages) {
  std::size_t bytes = 0;
  for (const Message& message : messages) bytes += message.role.size() + message.content.size();
  return estimate_tokens(bytes);
}

// A plausible count, or nothing.
std::optional<std::int64_t> count(const Json& value) {
  const auto number = value.as_int();
  return number && *number >= 0 && *number <= kTokensMax ? number : std::nullopt;
}

Usage read_usage(const Json& usage, const ChatRequest& request, std::string_view content) {
  Usage read;
  const auto prompt = count(usage["prompt_tokens"]);
  const auto completion = count(usage["completion_tokens"]);
  read.estimated = !prompt || !completion;
  read.prompt_tokens = prompt.value_or(estimate_tokens(request.messages));
  read.completion_tokens = completion.value_or(estimate_tokens(content.size()));
  read.total_tokens =
      count(usage["total_tokens"]).value_or(read.prompt_tokens + read.completion_tokens);
  read.cached_tokens = count(usage["prompt_tokens_details"]["cached_tokens"]).value_or(0);
  read.reasoning_tokens = count(usage["completion_tokens_details"]["reasoning_tokens"]).value_or(0);
  return read;
}

// A string, or the text parts of an array, as some endpoints answer.
std::string read_content(const Json& content) {
  std::string text = content.string_or("");
  for (const Json& part : content.items()) text += part["text"].string_or("");
  return text;
}

// Enough of a body for a message, with room for a secret that masking is to see whole.
std::string head(const std::string& body) {
  return body.substr(0, 8 * limits::kModelMessageBytes);
}

[[noreturn]] void not_a_completion(const std::string& reason, std::string detail, int status) {
  ErrorInfo info;
  info.detail = std::move(detail);
  info.status = status;
  info.end = CallEnd::kPermanent;
  throw InvalidResponse("the model service's answer is not a completion: " + reason,
                        std::move(info));
}

[[noreturn]] void not_usable(const std::string& reason, std::string detail) {
  ErrorInfo info;
  info.detail = std::move(detail);
  throw ImplementationError("the model's answer is not usable: " + reason, std::move(info));
}

Json parse_completion(const net::HttpResponse& answer) {
  auto body = Json::try_parse(answer.body);
  if (!body) {
    const bool html = trim(answer.body).starts_with("<");
    not_a_completion(html ? "it is a web page" : "it is not JSON", head(answer.body),
                     answer.status);
  }
  if (!body->is_object())
    not_a_completion("it is no JSON object", head(answer.body), answer.status);
  if (body->find("error") && !(*body)["error"].is_null()) {
    const std::string message = read_error(answer.body).message;
    not_a_completion("it is an error under a status of success",
                     message.empty() ? head(answer.body) : message, answer.status);
  }
  if ((*body)["choices"].size() == 0 || !(*body)["choices"].is_array()) {
    not_a_completion("it has no choices", head(answer.body), answer.status);
  }
  return std::move(*body);
}

// Why the choice cannot be used; empty when it can.
std::string defect(const Json& message, std::string_view finish_reason, std::string_view content) {
  if (finish_reason == "content_filter") return "the service's content filter took it away";
  if (!message["refusal"].string_or("").empty()) return "the model refused";
  // "length" is OpenAI's word; Mistral, DeepSeek and gateways before other dialects have their own.
  static constexpr std::array kCutOff = {"length", "model_length", "max_tokens", "MAX_TOKENS",
                                         "insufficient_system_resource"};
  if (std::find(kCutOff.begin(), kCutOff.end(), finish_reason) != kCutOff.end())
    return "it was cut off at the token limit";
  if (!content.empty()) return {};
  if (message["tool_calls"].size() > 0) return "it calls tools and says nothing";
  return message["content"].is_null() ? "its content is null" : "its content is empty";
}

}  // namespace

Capabilities common(const Capabilities& a, const Capabilities& b) {
  return {std::max(a.format, b.format), a.max_tokens && b.max_tokens,
          a.temperature && b.temperature};
}

Capabilities learn(const net::HttpResponse& answer, const ChatRequest& request,
                   const Capabilities& used) {
  Capabilities learned = used;
  const ErrorWords words = read_error(answer.body);
  if (answer.status != 400 || classify(answer.status, words) != Refusal::kOther) return learned;
  // Some endpoints answer 400 with plain text: then all of it are the words.
  const std::string text = ascii_lower(words.message.empty() ? answer.body : words.message) + " " +
                           ascii_lower(words.param);
  const bool unsupported = contains_any(words.code, {"unsupported", "unknown"});
  if (!request.json_schema.is_null() && used.format != Format::kText &&
      contains_any(text, {"response_format", "json_schema", "json_object", "structured output"})) {
    learned.format = used.format == Format::kJsonSchema ? Format::kJsonObject : Format::kText;
  } else if (used.max_tokens && (contains_any(text, {"max_completion_tokens"}) ||
                                 (unsupported && contains_any(text, {"max_tokens"})))) {
    learned.max_tokens = false;  // "max_tokens is too large: …" is not meant
  } else if (used.temperature && contains_any(text, {"temperature"}) &&
             (unsupported || contains_any(text, {"support", "not allowed", "deprecated"}))) {
    learned.temperature = false;
  }
  return learned;
}

std::string request_body(const ChatRequest& request, const std::string& model,
                         const Capabilities& capabilities) {
  Json messages = Json::array();
  for (const Message& message : request.messages) {
    messages.push_back(Json::object({{"role", message.role}, {"content", message.content}}));
  }
  Json body =
      Json::object({{"model", model}, {"messages", std::move(messages)}, {"stream", false}});
  body.set(capabilities.max_tokens ? "max_tokens" : "max_completion_tokens", request.max_tokens);
  if (capabilities.temperature && request.temperature)
    body.set("temperature", *request.temperature);
  if (!request.json_schema.is_null() && capabilities.format != Format::kText) {
    body.set("response_format", response_format(request.json_schema, capabilities.format));
  }
  return body.dump();
}

ErrorWords read_error(const std::string& body) {
  auto parsed = Json::try_parse(body);
  if (!parsed) return {};
  // {"error": {…}}, {"error": "…"}, [{"error": …}] (Gemini), {"message": …} and {"detail": …}
  // (vLLM).
  const Json& top = parsed->is_array() && parsed->size() > 0 ? parsed->items().front() : *parsed;
  const Json& error = top["error"].is_object() ? top["error"] : top;
  ErrorWords words;
  words.message = error["message"].string_or(top["error"].string_or(top["detail"].string_or("")));
  words.type = word(error["type"]);
  words.code = word(error["code"]);
  words.param = word(error["param"]);
  if (words.code.empty()) words.code = words.type;
  return words;
}

Refusal classify(int status, const ErrorWords& words) {
  const auto says = [&](std::initializer_list<std::string_view> names) {
    return is_one_of(words.code, names) || is_one_of(words.type, names);
  };
  // Only by code: some services say "exceeded your current quota" for limits of a minute.
  if (status == 402 ||
      says({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active",
            "exceeded_current_quota_error", "insufficient_balance", "insufficient_credits",
            "credit_balance_too_low"})) {
    return Refusal::kQuota;
  }
  if (says({"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}) ||
      contains_any(ascii_lower(words.message),
                   {"maximum context length", "context_length_exceeded"})) {
    return Refusal::kContextLength;
  }
  if (says({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"})) {
    return Refusal::kContentFilter;
  }
  return Refusal::kOther;
}

bool worth_retrying(const net::HttpResponse& answer) {
  const int status = answer.status;
  if (status < 400) return false;
  for (const int never : {400, 401, 403, 404, 413, 422, 501, 505}) {
    if (status == never) return false;
  }
  if (classify(status, read_error(answer.body)) != Refusal::kOther) return false;
  const auto asked = net::read_retry_hint(answer.headers, SystemTime{}).should_retry;
  return asked.value_or(status == 408 || status == 425 || status == 429 || status >= 500);
}

ChatResponse read_completion(const net::HttpResponse& answer, const ChatRequest& request,
                             Usage& spent) {
  const Json body = parse_completion(answer);
  const Json& choice = body["choices"].items().front();
  const Json& message = choice["message"];
  if (!message.is_object()) {
    not_a_completion("its first choice has no message", head(answer.body), answer.status);
  }
  ChatResponse response;
  response.content = read_content(message["content"]);
  response.model = body["model"].string_or("");
  response.finish_reason = choice["finish_reason"].string_or("");
  response.usage = spent = read_usage(body["usage"], request, response.content);
  if (response.finish_reason == "error") {
    not_a_completion("it ended with an error", head(answer.body), answer.status);
  }
  const std::string reason = defect(message, response.finish_reason, response.content);
  if (!reason.empty()) {
    const std::string refusal = message["refusal"].string_or("");
    not_usable(reason, refusal.empty() ? response.content : refusal);
  }
  return response;
}

}  // namespace necrocode::llm::openai_chat
