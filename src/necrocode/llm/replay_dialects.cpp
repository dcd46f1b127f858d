#include "necrocode/llm/replay_dialects.hpp"

#include <algorithm>
#include <array>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/llm/completion.hpp"

namespace necrocode::llm {
namespace {

constexpr std::size_t kChunkBytes = 20;  // some five tokens a piece
constexpr std::size_t kChunksMax = 10'000;

constexpr std::array kRoutes = {
    ModelRoute{"/v1/chat/completions", ModelApi::kChat},
    ModelRoute{"/v1/responses", ModelApi::kResponses},
    ModelRoute{"/v1/messages", ModelApi::kMessages},
    ModelRoute{"/chat/completions", ModelApi::kChat},
    ModelRoute{"/responses", ModelApi::kResponses},
    ModelRoute{"/messages", ModelApi::kMessages},
    ModelRoute{"/v1/v1/messages", ModelApi::kMessages},
    ModelRoute{"/openai/deployments/{deployment}/chat/completions", ModelApi::kChat},
    ModelRoute{"/openai/v1/chat/completions", ModelApi::kChat},
    ModelRoute{"/openai/v1/responses", ModelApi::kResponses},
    ModelRoute{"/openai/responses", ModelApi::kResponses}};

// ---- what is asked ----

// A string, or the texts of an array's parts; what a tool answered stands one level deeper.
std::string content_text(const Json& content) {
  std::string text = content.string_or("");
  for (const Json& part : content.items()) {
    text += part["text"].string_or("");
    text += part["content"].string_or("");
    for (const Json& inner : part["content"].items()) text += inner["text"].string_or("");
  }
  return text;
}

void add_text(Question& question, const std::string& text) {
  for (std::string* into : {&question.text, &question.last}) {
    if (!into->empty()) *into += '\n';
    *into += text;
  }
}

// The turns of a conversation. After each of the model's begins what is new.
void add_turns(Question& question, const Json& turns) {
  for (const Json& turn : turns.items()) {
    add_text(question, content_text(turn["content"]) + content_text(turn["output"]));
    const std::string role = turn["role"].string_or("");
    const std::string type = turn["type"].string_or("");
    if (role == "assistant" || type == "function_call") question.last.clear();
  }
}

void add_system(Question& question, const Json& system) {
  const std::string text = content_text(system);
  if (!text.empty()) add_text(question, text);
}

std::string_view turns_name(ModelApi api) {
  return api == ModelApi::kResponses ? "input" : "messages";
}

// ---- parts of an answer ----

std::int64_t now_seconds() {
  return to_unix_ms(real_clock().system_now()) / 1000;
}

const std::string& model_of(const CompletionAnswer& answer, const Question& question) {
  return answer.model.empty() ? question.model : answer.model;
}

// Of a neutral usage. Zero for what is no count, so that sums do not overflow.
std::int64_t count(const Json& usage, std::string_view name) {
  const std::int64_t number = usage[name].as_int().value_or(0);
  return number > 0 && number <= kTokensMax ? number : 0;
}

// The neutral counts, or null when the answer says so.
Json neutral_usage(const CompletionAnswer& answer, const Question& question) {
  Json usage = Json::object();
  if (answer.usage) {
    if (!answer.usage->is_object()) return Json();
    usage = *answer.usage;
  } else {
    std::size_t bytes = answer.content.size() + answer.reasoning.size();
    for (const ToolCall& call : answer.tool_calls)
      bytes += call.name.size() + call.arguments.size();
    usage.set("prompt_tokens", estimate_tokens(question.text.size()));
    usage.set("completion_tokens", estimate_tokens(bytes));
  }
  if (!usage.find("total_tokens")) {
    usage.set("total_tokens", count(usage, "prompt_tokens") + count(usage, "completion_tokens"));
  }
  return usage;
}

// Chat Completions has the neutral names, with two of them one level deeper.
Json chat_usage(const CompletionAnswer& answer, const Question& question) {
  Json usage = neutral_usage(answer, question);
  const auto move_into = [&](std::string_view name, std::string_view details) {
    if (!usage.find(name)) return;
    Json inner = usage[details].is_object() ? usage[details] : Json::object();
    inner.set(name, usage[name]);
    usage.erase(name);
    usage.set(details, std::move(inner));
  };
  move_into("cached_tokens", "prompt_tokens_details");
  move_into("reasoning_tokens", "completion_tokens_details");
  return usage;
}

Json responses_usage(const CompletionAnswer& answer, const Question& question) {
  const Json usage = neutral_usage(answer, question);
  if (usage.is_null()) return usage;
  const Json cached = Json::object({{"cached_tokens", count(usage, "cached_tokens")}});
  const Json reasoning = Json::object({{"reasoning_tokens", count(usage, "reasoning_tokens")}});
  return Json::object({{"input_tokens", count(usage, "prompt_tokens")},
                       {"input_tokens_details", cached},
                       {"output_tokens", count(usage, "completion_tokens")},
                       {"output_tokens_details", reasoning},
                       {"total_tokens", count(usage, "total_tokens")}});
}

// Anthropic's input_tokens are those that came neither from the cache nor went into it.
Json messages_usage(const CompletionAnswer& answer, const Question& question) {
  const Json usage = neutral_usage(answer, question);
  if (usage.is_null()) return usage;
  const std::int64_t read = count(usage, "cached_tokens");
  const std::int64_t written = count(usage, "cache_write_tokens");
  const std::int64_t fresh =
      std::max<std::int64_t>(0, count(usage, "prompt_tokens") - read - written);
  return Json::object({{"input_tokens", fresh},
                       {"cache_creation_input_tokens", written},
                       {"cache_read_input_tokens", read},
                       {"output_tokens", count(usage, "completion_tokens")}});
}

Json word_or_null(std::string_view word) {
  return word.empty() ? Json() : Json(word);
}

bool is_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;
}

// Pieces of about `chunk` bytes, each of whole characters.
std::vector<std::string_view> pieces(std::string_view text, std::size_t chunk) {
  if (chunk == 0) chunk = kChunkBytes;
  chunk = std::max(chunk, text.size() / kChunksMax + 1);
  std::vector<std::string_view> cut;
  while (!text.empty()) {
    std::size_t end = std::min(chunk, text.size());
    while (end < text.size() && is_continuation(text[end])) ++end;
    cut.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return cut;
}

std::string event(std::string_view name, const Json& data) {
  std::string text;
  if (!name.empty()) text.append("event: ").append(name).append("\n");
  return text.append("data: ").append(data.dump()).append("\n\n");
}

// ---- Chat Completions ----

Json chat_tool_call(const ToolCall& call, std::string_view arguments) {
  const Json function = Json::object({{"name", call.name}, {"arguments", arguments}});
  return Json::object({{"id", call.id}, {"type", "function"}, {"function", function}});
}

// The object "chat.completion".
Json chat_whole(const CompletionAnswer& answer, const Question& question) {
  const bool silent = answer.content.empty() && !answer.tool_calls.empty();
  Json message = Json::object({{"role", "assistant"},
                               {"content", silent ? Json() : Json(answer.content)},
                               {"refusal", nullptr}});
  if (!answer.reasoning.empty()) message.set("reasoning_content", answer.reasoning);
  Json calls = Json::array();
  for (const ToolCall& call : answer.tool_calls) {
    calls.push_back(chat_tool_call(call, call.arguments));
  }
  if (calls.size() > 0) message.set("tool_calls", std::move(calls));
  const Json choice = Json::object({{"index", 0},
                                    {"message", std::move(message)},
                                    {"logprobs", nullptr},
                                    {"finish_reason", word_or_null(answer.finish_reason)}});
  return Json::object({{"id", "chatcmpl-" + random_hex(12)},
                       {"object", "chat.completion"},
                       {"created", now_seconds()},
                       {"model", model_of(answer, question)},
                       {"choices", Json(Json::Array{choice})},
                       {"usage", chat_usage(answer, question)}});
}

// The chunks of one chat completion, "chat.completion.chunk".
class ChatStream {
 public:
  ChatStream(const CompletionAnswer& answer, const Question& question)
      : answer_(answer),
        question_(question),
        base_(Json::object({{"id", "chatcmpl-" + random_hex(12)},
                            {"object", "chat.completion.chunk"},
                            {"created", now_seconds()},
                            {"model", model_of(answer, question)}})) {}

  std::vector<std::string> events() && {
    delta(Json::object({{"role", "assistant"}, {"content", ""}, {"refusal", nullptr}}));
    texts("reasoning_content", answer_.reasoning);
    texts("content", answer_.content);
    for (std::size_t i = 0; i < answer_.tool_calls.size(); ++i) tool_call(i);
    choice(Json::object(), word_or_null(answer_.finish_reason));
    if (question_.stream_usage) {
      chunk(Json::array(), chat_usage(answer_, question_));
    }
    events_.push_back("data: [DONE]\n\n");
    return std::move(events_);
  }

 private:
  void texts(std::string_view name, std::string_view text) {
    for (const std::string_view piece : pieces(text, answer_.chunk)) {
      delta(Json::object().set(name, piece));
    }
  }
  void tool_call(std::size_t index) {
    const ToolCall& call = answer_.tool_calls[index];
    const auto send = [&](Json part) {
      part.set("index", index);
      delta(Json::object({{"tool_calls", Json(Json::Array{std::move(part)})}}));
    };
    send(chat_tool_call(call, ""));
    for (const std::string_view piece : pieces(call.arguments, answer_.chunk)) {
      send(Json::object({{"function", Json::object({{"arguments", piece}})}}));
    }
  }
  void delta(const Json& delta) { choice(delta, Json()); }
  void choice(const Json& delta, const Json& finish_reason) {
    const Json choice = Json::object(
        {{"index", 0}, {"delta", delta}, {"logprobs", nullptr}, {"finish_reason", finish_reason}});
    chunk(Json(Json::Array{choice}), Json());
  }
  // With include_usage every chunk has the member; only the last one, without choices, a value.
  void chunk(Json choices, const Json& usage) {
    Json data = base_;
    data.set("choices", std::move(choices));
    if (question_.stream_usage) data.set("usage", usage);
    events_.push_back(event("", data));
  }

  const CompletionAnswer& answer_;
  const Question& question_;
  const Json base_;
  std::vector<std::string> events_;
};

// ---- Responses ----

Json output_text(std::string_view text) {
  return Json::object({{"type", "output_text"},
                       {"text", text},
                       {"annotations", Json::array()},
                       {"logprobs", Json::array()}});
}

Json summary_text(std::string_view text) {
  return Json::object({{"type", "summary_text"}, {"text", text}});
}

// An item of a response's output.
struct OutputItem {
  Json whole;
  Json empty;  // as it stands when it begins
};

OutputItem output_item(std::string_view prefix, Json members, std::string_view field, Json full,
                       Json none) {
  Json item = Json::object({{"id", std::string(prefix) + random_hex(12)}});
  for (auto& [name, value] : members.members()) item.set(name, std::move(value));
  OutputItem made{item, std::move(item)};
  made.whole.set(field, std::move(full));
  made.empty.set(field, std::move(none));
  if (!made.whole.find("status")) return made;
  made.whole.set("status", "completed");
  return made;
}

class ResponseSpeaker {
 public:
  ResponseSpeaker(const CompletionAnswer& answer, const Question& question)
      : answer_(answer), question_(question), id_("resp_" + random_hex(12)) {
    if (!answer.reasoning.empty()) {
      reasoning_ = output_item("rs_", Json::object({{"type", "reasoning"}}), "summary",
                               Json(Json::Array{summary_text(answer.reasoning)}), Json::array());
    }
    if (!answer.content.empty() || answer.tool_calls.empty()) {
      message_ = output_item(
          "msg_",
          Json::object({{"type", "message"}, {"status", "in_progress"}, {"role", "assistant"}}),
          "content", Json(Json::Array{output_text(answer.content)}), Json::array());
    }
    for (const ToolCall& call : answer.tool_calls) {
      calls_.push_back(output_item("fc_",
                                   Json::object({{"type", "function_call"},
                                                 {"status", "in_progress"},
                                                 {"call_id", call.id},
                                                 {"name", call.name}}),
                                   "arguments", call.arguments, ""));
    }
  }

  Json whole() const { return response(status(), true); }

  std::vector<std::string> events() && {
    send("response.created", Json::object({{"response", response("in_progress", false)}}));
    send("response.in_progress", Json::object({{"response", response("in_progress", false)}}));
    if (!reasoning_.whole.is_null()) reasoning();
    if (!message_.whole.is_null()) message();
    for (std::size_t i = 0; i < calls_.size(); ++i) call(calls_[i], answer_.tool_calls[i]);
    send("response." + std::string(status()), Json::object({{"response", whole()}}));
    return std::move(events_);
  }

 private:
  std::string_view status() const {
    const bool whole = answer_.finish_reason == "stop" || answer_.finish_reason == "tool_calls";
    return whole ? "completed" : "incomplete";
  }

  // The object "response", with the parameters of the request as their defaults.
  Json response(std::string_view status, bool ended) const {
    Json output = Json::array();
    if (ended && !reasoning_.whole.is_null()) output.push_back(reasoning_.whole);
    if (ended && !message_.whole.is_null()) output.push_back(message_.whole);
    for (const OutputItem& call : calls_) {
      if (ended) output.push_back(call.whole);
    }
    Json details;
    if (status == "incomplete") {
      const bool length = answer_.finish_reason == "length";
      details = Json::object(
          {{"reason", length ? "max_output_tokens" : std::string_view(answer_.finish_reason)}});
    }
    return Json::object({{"id", id_},
                         {"object", "response"},
                         {"created_at", created_},
                         {"status", status},
                         {"error", nullptr},
                         {"incomplete_details", details},
                         {"instructions", nullptr},
                         {"max_output_tokens", nullptr},
                         {"model", model_of(answer_, question_)},
                         {"output", std::move(output)},
                         {"parallel_tool_calls", true},
                         {"previous_response_id", nullptr},
                         {"store", false},
                         {"temperature", 1.0},
                         {"tool_choice", "auto"},
                         {"tools", Json::array()},
                         {"top_p", 1.0},
                         {"usage", ended ? responses_usage(answer_, question_) : Json()},
                         {"metadata", Json::object()}});
  }

  void send(const std::string& type, const Json& members) {
    Json data = Json::object({{"type", type}, {"sequence_number", events_.size()}});
    for (const auto& [name, value] : members.members()) data.set(name, value);
    events_.push_back(event(type, data));
  }
  void begin(const OutputItem& item) {
    send("response.output_item.added",
         Json::object({{"output_index", index_}, {"item", item.empty}}));
  }
  void end(const OutputItem& item) {
    send("response.output_item.done",
         Json::object({{"output_index", index_++}, {"item", item.whole}}));
  }
  // Where in the output an event belongs, with what it says of it.
  Json at(const OutputItem& item, std::initializer_list<JsonMember> members) const {
    Json place = Json::object({{"item_id", item.whole["id"]}, {"output_index", index_}});
    for (const auto& [name, value] : members) place.set(name, value);
    return place;
  }

  void reasoning() {
    const OutputItem& item = reasoning_;
    const std::string part = "response.reasoning_summary_part.";
    const std::string text = "response.reasoning_summary_text.";
    begin(item);
    send(part + "added", at(item, {{"summary_index", 0}, {"part", summary_text("")}}));
    for (const std::string_view piece : pieces(answer_.reasoning, answer_.chunk)) {
      send(text + "delta", at(item, {{"summary_index", 0}, {"delta", piece}}));
    }
    send(text + "done", at(item, {{"summary_index", 0}, {"text", answer_.reasoning}}));
    send(part + "done",
         at(item, {{"summary_index", 0}, {"part", summary_text(answer_.reasoning)}}));
    end(item);
  }
  void message() {
    const OutputItem& item = message_;
    const std::string part = "response.content_part.";
    const std::string text = "response.output_text.";
    const JsonMember none = {"logprobs", Json::array()};
    begin(item);
    send(part + "added", at(item, {{"content_index", 0}, {"part", output_text("")}}));
    for (const std::string_view piece : pieces(answer_.content, answer_.chunk)) {
      send(text + "delta", at(item, {{"content_index", 0}, {"delta", piece}, none}));
    }
    send(text + "done", at(item, {{"content_index", 0}, {"text", answer_.content}, none}));
    send(part + "done", at(item, {{"content_index", 0}, {"part", output_text(answer_.content)}}));
    end(item);
  }
  void call(const OutputItem& item, const ToolCall& call) {
    const std::string arguments = "response.function_call_arguments.";
    begin(item);
    for (const std::string_view piece : pieces(call.arguments, answer_.chunk)) {
      send(arguments + "delta", at(item, {{"delta", piece}}));
    }
    send(arguments + "done", at(item, {{"name", call.name}, {"arguments", call.arguments}}));
    end(item);
  }

  const CompletionAnswer& answer_;
  const Question& question_;
  const std::string id_;
  const std::int64_t created_ = now_seconds();
  OutputItem reasoning_, message_;
  std::vector<OutputItem> calls_;
  std::size_t index_ = 0;
  std::vector<std::string> events_;
};

// ---- Messages ----

std::string_view stop_reason(std::string_view finish_reason) {
  if (finish_reason == "stop") return "end_turn";
  if (finish_reason == "length") return "max_tokens";
  if (finish_reason == "tool_calls") return "tool_use";
  if (finish_reason == "content_filter") return "refusal";
  return finish_reason;
}

Json tool_use(const ToolCall& call, Json input) {
  return Json::object(
      {{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", std::move(input)}});
}

Json thinking(std::string_view text) {
  return Json::object({{"type", "thinking"}, {"thinking", text}, {"signature", ""}});
}

Json text_block(std::string_view text) {
  return Json::object({{"type", "text"}, {"text", text}});
}

Json message(const CompletionAnswer& answer, const Question& question, Json content,
             const Json& reason, Json usage) {
  return Json::object({{"id", "msg_" + random_hex(12)},
                       {"type", "message"},
                       {"role", "assistant"},
                       {"model", model_of(answer, question)},
                       {"content", std::move(content)},
                       {"stop_reason", reason},
                       {"stop_sequence", nullptr},
                       {"usage", std::move(usage)}});
}

Json messages_whole(const CompletionAnswer& answer, const Question& question) {
  Json content = Json::array();
  if (!answer.reasoning.empty()) content.push_back(thinking(answer.reasoning));
  if (!answer.content.empty()) content.push_back(text_block(answer.content));
  for (const ToolCall& call : answer.tool_calls) {
    // Arguments that are not JSON stand as the text they are: whoever reads them is to notice.
    content.push_back(
        tool_use(call, Json::try_parse(call.arguments).value_or(Json(call.arguments))));
  }
  return message(answer, question, std::move(content),
                 word_or_null(stop_reason(answer.finish_reason)), messages_usage(answer, question));
}

class MessageStream {
 public:
  MessageStream(const CompletionAnswer& answer, const Question& question)
      : answer_(answer), question_(question) {}

  std::vector<std::string> events() && {
    const Json usage = messages_usage(answer_, question_);
    Json first = usage;
    if (first.is_object()) first.set("output_tokens", 1);
    send("message_start", Json::object({{"message", message(answer_, question_, Json::array(),
                                                            Json(), std::move(first))}}));
    send("ping", Json::object());
    if (!answer_.reasoning.empty()) {
      block(thinking(""), "thinking_delta", "thinking", answer_.reasoning);
    }
    if (!answer_.content.empty()) block(text_block(""), "text_delta", "text", answer_.content);
    for (const ToolCall& call : answer_.tool_calls) {
      block(tool_use(call, Json::object()), "input_json_delta", "partial_json", call.arguments);
    }
    const Json delta =
        Json::object({{"stop_reason", word_or_null(stop_reason(answer_.finish_reason))},
                      {"stop_sequence", nullptr}});
    send("message_delta", Json::object({{"delta", delta}, {"usage", usage}}));
    send("message_stop", Json::object());
    return std::move(events_);
  }

 private:
  void send(std::string_view type, const Json& members) {
    Json data = Json::object({{"type", type}});
    for (const auto& [name, value] : members.members()) data.set(name, value);
    events_.push_back(event(type, data));
  }
  void block(const Json& begin, std::string_view delta, std::string_view field,
             std::string_view text) {
    send("content_block_start", Json::object({{"index", index_}, {"content_block", begin}}));
    for (const std::string_view piece : pieces(text, answer_.chunk)) {
      const Json change = Json::object({{"type", delta}}).set(field, piece);
      send("content_block_delta", Json::object({{"index", index_}, {"delta", change}}));
    }
    send("content_block_stop", Json::object({{"index", index_++}}));
  }

  const CompletionAnswer& answer_;
  const Question& question_;
  std::size_t index_ = 0;
  std::vector<std::string> events_;
};

// ---- errors ----

struct ErrorKind {
  int status;
  std::string_view openai;
  std::string_view anthropic;
};
constexpr std::array kErrorKinds = {
    ErrorKind{400, "invalid_request_error", "invalid_request_error"},
    ErrorKind{401, "authentication_error", "authentication_error"},
    ErrorKind{403, "permission_error", "permission_error"},
    ErrorKind{404, "invalid_request_error", "not_found_error"},
    ErrorKind{413, "invalid_request_error", "request_too_large"},
    ErrorKind{429, "rate_limit_error", "rate_limit_error"},
    ErrorKind{529, "server_error", "overloaded_error"}};

ErrorKind kind_of(int status) {
  for (const ErrorKind& kind : kErrorKinds) {
    if (kind.status == status) return kind;
  }
  return status < 500 ? kErrorKinds.front() : ErrorKind{status, "server_error", "api_error"};
}

}  // namespace

std::span<const ModelRoute> model_routes() {
  return kRoutes;
}

Question read_question(ModelApi api, const Json& body, std::string& defect) {
  Question question;
  defect.clear();
  if (!body.is_object()) {
    defect = "the body is not a JSON object";
    return question;
  }
  question.model = body["model"].string_or("");
  question.stream = body["stream"].as_bool().value_or(false);
  question.stream_usage = body["stream_options"]["include_usage"].as_bool().value_or(false);
  if (api == ModelApi::kMessages) add_system(question, body["system"]);
  if (api == ModelApi::kResponses) add_system(question, body["instructions"]);
  const Json& turns = body[turns_name(api)];
  if (turns.is_string() && api == ModelApi::kResponses) {
    question.last.clear();
    add_text(question, turns.string_or(""));
  } else if (turns.is_array() && turns.size() > 0) {
    question.last.clear();
    add_turns(question, turns);
  } else {
    defect = std::string(turns_name(api)) + " must be an array with at least one element";
  }
  return question;
}

Json error_body(ModelApi api, const SpokenError& error) {
  const ErrorKind kind = kind_of(error.status);
  if (api == ModelApi::kMessages) {
    const Json inner = Json::object({{"type", kind.anthropic}, {"message", error.message}});
    return Json::object({{"type", "error"}, {"error", inner}});
  }
  const Json code = error.code.empty() ? Json() : Json(error.code);
  const Json inner = Json::object(
      {{"message", error.message}, {"type", kind.openai}, {"param", nullptr}, {"code", code}});
  return Json::object({{"error", inner}});
}

Json whole_answer(ModelApi api, const CompletionAnswer& answer, const Question& question) {
  if (api == ModelApi::kChat) return chat_whole(answer, question);
  if (api == ModelApi::kMessages) return messages_whole(answer, question);
  return ResponseSpeaker(answer, question).whole();
}

std::vector<std::string> streamed_answer(ModelApi api, const CompletionAnswer& answer,
                                         const Question& question) {
  if (api == ModelApi::kChat) return ChatStream(answer, question).events();
  if (api == ModelApi::kMessages) return MessageStream(answer, question).events();
  return ResponseSpeaker(answer, question).events();
}

std::string error_event(ModelApi api, const SpokenError& error) {
  if (api == ModelApi::kChat) return event("", error_body(api, error));
  if (api == ModelApi::kMessages) return event("error", error_body(api, error));
  return event("error", Json::object({{"type", "error"},
                                      {"code", error.code},
                                      {"message", error.message},
                                      {"param", nullptr},
                                      {"sequence_number", 0}}));
}

std::string sign_of_life(ModelApi api) {
  if (api != ModelApi::kMessages) return ": keep-alive\n\n";
  return event("ping", Json::object({{"type", "ping"}}));
}

}  // namespace necrocode::llm
