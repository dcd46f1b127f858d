#include "necrocode/llm/dialect.hpp"

#include <algorithm>
#include <array>

#include "necrocode/base/text.hpp"
#include "necrocode/llm/json_view.hpp"

namespace necrocode::llm {
namespace {

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

namespace {

// What a refusal is about: the parameter it names, else its words. What has no form of its own may
// be an echo of the request, which names everything: of that only the beginning counts.
std::string subject_of(const net::HttpResponse& answer, const ErrorWords& words) {
  constexpr std::size_t kPlainBytes = 300;
  // What the messages lack may be asked for by another parameter.
  const bool of_the_messages = words.param == "messages" || words.param == "input";
  if (!words.param.empty() && !of_the_messages) return ascii_lower(words.param);
  if (!words.message.empty()) return ascii_lower(words.message);
  return Json::try_parse(answer.body) ? std::string()
                                      : ascii_lower(answer.body.substr(0, kPlainBytes));
}

}  // namespace

Capabilities learn(const net::HttpResponse& answer, const ChatRequest& request, bool streamed,
                   const Capabilities& used) {
  if (answer.status != 400 && answer.status != 422) return used;
  Capabilities learned = used;
  const ErrorWords words = read_error(answer.body);
  if (classify(answer.status, words) != Refusal::kOther) return learned;
  const std::string subject = subject_of(answer, words);
  const std::string text = subject + " " + ascii_lower(words.message);
  const auto about = [&](std::initializer_list<std::string_view> names) {
    return contains_any(subject, names);
  };
  const bool by_code = contains_any(words.code, {"unsupported", "unknown", "extra_forbidden"});
  const bool unsupported =
      by_code || contains_any(text, {"not support", "unsupported", "does not stream", "not allowed",
                                     "not permitted", "extra inputs", "deprecated", "unrecognized",
                                     "unknown", "verified to"});
  const bool asked_for_format = !request.json_schema.is_null() && used.format != Format::kText;
  // A schema that is wrong is wrong everywhere.
  const bool bad_schema = contains_any(text, {"invalid schema"});
  if (streamed && used.stream_options && about({"stream_options"})) {
    learned.stream_options = false;
  } else if (asked_for_format && !bad_schema &&
             about({"response_format", "response format", "grammar", "json schema", "json_schema",
                    "json_object", "text.format", "structured output", "tool_choice"})) {
    learned.format = used.format == Format::kJsonSchema ? Format::kJsonObject : Format::kText;
  } else if (used.max_tokens && (contains_any(text, {"max_completion_tokens"}) ||
                                 (by_code && about({"max_tokens"})))) {
    learned.max_tokens = false;  // "max_tokens is too large: …" is not meant
  } else if (used.temperature && unsupported && about({"temperature"})) {
    learned.temperature = false;
  } else if (streamed && unsupported && about({"stream"})) {
    learned.stream = false;
  }
  return learned;
}

std::string arguments_text(JsonView arguments) {
  if (arguments.is_string()) return std::string(arguments.text());
  // Of another type than an object they are told as they are, and refused for it.
  return arguments.given() ? arguments.dump() : std::string();
}

std::string add_tool_call(Completion& completion, ToolCall call) {
  if (completion.tool_calls.size() >= kToolCallsMax) return "it calls too many tools";
  completion.tool_calls.push_back(std::move(call));
  return {};
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
