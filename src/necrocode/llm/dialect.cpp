#include "necrocode/llm/dialect.hpp"

#include <algorithm>
#include <array>

#include "necrocode/base/text.hpp"

namespace necrocode::llm {
namespace {

bool contains_any(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::any_of(words.begin(), words.end(), [&](std::string_view word) {
    return text.find(word) != std::string_view::npos;
  });
}

std::array<const Dialect*, 3> dialects() {
  return {&openai_chat(), &openai_responses(), &anthropic()};
}

}  // namespace

const Dialect* find_dialect(std::string_view provider) {
  for (const Dialect* dialect : dialects()) {
    if (dialect->name() == provider) return dialect;
  }
  return nullptr;
}

std::string known_dialects() {
  std::vector<std::string> names;
  for (const Dialect* dialect : dialects()) names.emplace_back(dialect->name());
  return join(names, ", ");
}

Capabilities learn(const net::HttpResponse& answer, const ChatRequest& request, bool streamed,
                   const Capabilities& used) {
  if (answer.status != 400) return used;
  Capabilities learned = used;
  const ErrorWords words = read_error(answer.body);
  if (classify(answer.status, words) != Refusal::kOther) return learned;
  // Some endpoints answer 400 with plain text: then all of it are the words.
  const std::string text = ascii_lower(words.message.empty() ? answer.body : words.message) + " " +
                           ascii_lower(words.param);
  const bool unsupported = contains_any(words.code, {"unsupported", "unknown"}) ||
                           contains_any(text, {"support", "not allowed", "not permitted",
                                               "deprecated", "unrecognized", "unknown"});
  const bool asked_for_format = !request.json_schema.is_null() && used.format != Format::kText;
  if (streamed && used.stream_options && contains_any(text, {"stream_options"})) {
    learned.stream_options = false;
  } else if (asked_for_format &&
             contains_any(text, {"response_format", "json_schema", "json_object", "text.format",
                                 "structured output", "tool_choice"})) {
    learned.format = used.format == Format::kJsonSchema ? Format::kJsonObject : Format::kText;
  } else if (used.max_tokens && (contains_any(text, {"max_completion_tokens"}) ||
                                 (contains_any(words.code, {"unsupported", "unknown"}) &&
                                  contains_any(text, {"max_tokens"})))) {
    learned.max_tokens = false;  // "max_tokens is too large: …" is not meant
  } else if (used.temperature && unsupported && contains_any(text, {"temperature"})) {
    learned.temperature = false;
  } else if (streamed &&
             (words.param == "stream" || contains_any(text, {"\"stream\"", "'stream'", "`stream`",
                                                             "streaming", "not stream"}))) {
    learned.stream = false;
  }
  return learned;
}

bool is_general_choice(std::string_view tool_choice) {
  return tool_choice.empty() || tool_choice == "auto" || tool_choice == "none" ||
         tool_choice == "required";
}

Json arguments_object(const std::string& arguments) {
  auto parsed = Json::try_parse(arguments);
  return parsed && parsed->is_object() ? std::move(*parsed) : Json::object();
}

}  // namespace necrocode::llm
