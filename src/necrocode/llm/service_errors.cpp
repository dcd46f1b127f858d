#include "necrocode/llm/service_errors.hpp"

#include <algorithm>
#include <array>

#include "necrocode/base/json.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/llm_config.hpp"
#include "necrocode/net/retry.hpp"

namespace necrocode::llm {
namespace {

using Words = std::initializer_list<std::string_view>;

bool says(const ErrorWords& words, Words names) {
  return std::any_of(names.begin(), names.end(), [&](std::string_view name) {
    return words.code == name || words.type == name;
  });
}

// `code` is a string at OpenAI and a number at others.
std::string word(const Json& value) {
  if (const auto text = value.as_string()) return std::string(*text);
  return value.is_int() ? value.dump() : std::string();
}

// {"type", "loc": ["body", "a", "b"], "msg"}
ErrorWords read_detail(const Json& detail) {
  ErrorWords words;
  words.message = detail["msg"].string_or("");
  words.code = words.type = detail["type"].string_or("");
  for (const Json& step : detail["loc"].items()) {
    const std::string name = step.string_or("");
    if (name.empty() || name == "body") continue;
    words.param += (words.param.empty() ? "" : ".") + name;
  }
  return words;
}

bool may_pass(int status) {
  return status == 408 || status == 425 || status == 429 ||
         (status >= 500 && status != 501 && status != 505);
}

bool never_helps(int status) {
  constexpr std::array kNever = {400, 401, 403, 404, 413, 422, 501, 505};
  return std::find(kNever.begin(), kNever.end(), status) != kNever.end();
}

}  // namespace

bool contains_any(std::string_view text, Words words) {
  return std::any_of(words.begin(), words.end(), [&](std::string_view word) {
    return text.find(word) != std::string_view::npos;
  });
}

ErrorWords read_error(std::string_view body) {
  auto parsed = Json::try_parse(body);
  if (!parsed) return {};
  // {"error": {…}}, {"error": "…"}, [{"error": …}] (Gemini), {"response": {"error": …}} (a failed
  // response of OpenAI's), {"message": …} and {"detail": …} (vLLM).
  const Json& top = parsed->is_array() && parsed->size() > 0 ? parsed->items().front() : *parsed;
  const Json& holder = top["response"].is_object() ? top["response"] : top;
  const Json& error = holder["error"].is_object() ? holder["error"] : holder;
  // What FastAPI found wrong, as a list: vLLM's detail, Mistral's message.
  const Json& inner = error["message"].is_object() ? error["message"] : holder;
  if (inner["detail"].is_array() && inner["detail"].size() > 0) {
    return read_detail(inner["detail"].items().front());
  }
  ErrorWords words;
  words.message =
      error["message"].string_or(holder["error"].string_or(holder["detail"].string_or("")));
  words.type = word(error["type"]);
  words.code = word(error["code"]);
  words.param = word(error["param"]);
  if (words.code.empty()) words.code = words.type;
  return words;
}

int status_of(const ErrorWords& words) {
  struct Meaning {
    std::string_view name;
    int status;
  };
  // Anthropic's error reference, and OpenAI's codes.
  static constexpr Meaning kMeanings[] = {
      {"rate_limit_error", 429},     {"rate_limit_exceeded", 429}, {"overloaded_error", 529},
      {"authentication_error", 401}, {"invalid_api_key", 401},     {"permission_error", 403},
      {"billing_error", 402},        {"not_found_error", 404},     {"model_not_found", 404},
      {"request_too_large", 413},    {"invalid_prompt", 400},      {"invalid_request_error", 400},
  };
  for (const auto& [name, status] : kMeanings) {
    if (says(words, {name})) return status;
  }
  const Refusal refusal = classify(0, words);
  if (refusal != Refusal::kOther) return refusal == Refusal::kQuota ? 402 : 400;
  const auto number = parse_int(words.code);  // OpenRouter, llama.cpp
  return number && *number >= 400 && *number <= 599 ? static_cast<int>(*number) : 500;
}

Refusal classify(int status, const ErrorWords& words) {
  const std::string message = ascii_lower(words.message);
  // By code, or by Anthropic's sentence: some services say "exceeded your current quota" for limits
  // of a minute.
  if (status == 402 ||
      says(words, {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active",
                   "exceeded_current_quota_error", "insufficient_balance", "insufficient_credits",
                   "credit_balance_too_low", "billing_error"}) ||
      contains_any(message, {"credit balance is too low"})) {
    return Refusal::kQuota;
  }
  if (says(words,
           {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}) ||
      contains_any(message,
                   {"maximum context length", "context_length_exceeded", "prompt is too long",
                    "request too large for", "exceeds the available context size"})) {
    return Refusal::kContextLength;
  }
  if (says(words, {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"})) {
    return Refusal::kContentFilter;
  }
  return Refusal::kOther;
}

bool worth_retrying(const net::HttpResponse& answer) {
  const int status = answer.status;
  if (status < 400 || never_helps(status)) return false;
  if (classify(status, read_error(answer.body)) != Refusal::kOther) return false;
  const auto asked = net::read_retry_hint(answer.headers, SystemTime{}).should_retry;
  return asked.value_or(may_pass(status));
}

bool worth_retrying(const ErrorWords& words) {
  return classify(0, words) == Refusal::kOther && may_pass(status_of(words));
}

void throw_refusal(int status, const ErrorWords& words, ErrorInfo info) {
  if (info.detail.empty()) info.detail = words.message;
  if (info.status == 0) info.status = status;
  const Refusal refusal = classify(status, words);
  if (status == 401 || status == 403) {
    throw Unauthorized("the model service refused the API key", std::move(info));
  }
  if (refusal == Refusal::kContextLength) {
    throw ContextLengthExceeded("the prompt is longer than the model can read", std::move(info));
  }
  if (refusal == Refusal::kQuota) {
    info.end = CallEnd::kPermanent;
    throw RateLimited("the model service's quota is used up", std::move(info));
  }
  if (status == 429) {
    throw RateLimited("the model service limits the rate of calls", std::move(info));
  }
  if (refusal == Refusal::kContentFilter) {
    throw ServiceError("the model service's content filter refused the prompt", std::move(info));
  }
  if (status == 404) {
    throw NotFound("the model service knows no such model or address", std::move(info));
  }
  if (status >= 500 || status == 408 || status == 425)
    throw Unavailable("the model service failed", std::move(info));
  throw ServiceError("the model service refused the request", std::move(info));
}

}  // namespace necrocode::llm
