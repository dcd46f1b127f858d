#include "necrocode/llm/recorded_answer.hpp"

#include <algorithm>
#include <array>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/completion.hpp"
#include "necrocode/net/event_stream.hpp"

namespace necrocode::llm {
namespace {

constexpr std::size_t kPartsMax = 10'000;  // tool calls or blocks of one answer

// What an answer turned out to be; nothing when a cassette has no words for it.
struct Read {
  CompletionAnswer answer;
  bool whole = false;  // its finish came
};
using MaybeRead = std::optional<Read>;

// ---- usage ----

// Zero for what is no count, so that sums of forged ones do not overflow.
std::int64_t count(const Json& value) {
  const std::int64_t number = value.as_int().value_or(0);
  return number > 0 && number <= kTokensMax ? number : 0;
}

struct Counts {
  std::int64_t prompt = 0, completion = 0, total = 0, cached = 0, written = 0, reasoning = 0;
};

// What is zero, or follows from the others, is left out.
Json neutral(const Counts& counts) {
  Json usage =
      Json::object({{"prompt_tokens", counts.prompt}, {"completion_tokens", counts.completion}});
  const auto keep = [&](std::string_view name, std::int64_t value) {
    if (value > 0) usage.set(name, value);
  };
  if (counts.total != counts.prompt + counts.completion) keep("total_tokens", counts.total);
  keep("cached_tokens", counts.cached);
  keep("cache_write_tokens", counts.written);
  keep("reasoning_tokens", counts.reasoning);
  return usage;
}

std::optional<Json> read_usage(ModelApi api, const Json& body) {
  const Json* found = body.find("usage");
  if (found == nullptr) return std::nullopt;
  const Json& usage = *found;
  if (!usage.is_object()) return Json();
  const bool chat = api == ModelApi::kChat;
  const std::string in = chat ? "prompt_tokens" : "input_tokens";
  const std::string out = chat ? "completion_tokens" : "output_tokens";
  Counts counts;
  counts.prompt = count(usage[in]);
  counts.completion = count(usage[out]);
  if (api == ModelApi::kMessages) {
    counts.cached = count(usage["cache_read_input_tokens"]);
    counts.written = count(usage["cache_creation_input_tokens"]);
    counts.prompt += counts.cached + counts.written;
  } else {
    counts.total = count(usage["total_tokens"]);
    counts.cached = count(usage[in + "_details"]["cached_tokens"]);
    counts.reasoning = count(usage[out + "_details"]["reasoning_tokens"]);
  }
  return neutral(counts);
}

// ---- Chat Completions ----

std::string reasoning_of(const Json& message) {
  const std::string text = message["reasoning_content"].string_or("");
  return text.empty() ? message["reasoning"].string_or("") : text;
}

bool has_other_words(const Json& message) {
  return !message["refusal"].string_or("").empty() || message["function_call"].is_object() ||
         message["audio"].is_object() || message["content"].is_array() ||
         message["annotations"].size() > 0;
}

ToolCall chat_call(const Json& call) {
  const Json& function = call["function"];
  return {call["id"].string_or(""), function["name"].string_or(""),
          function["arguments"].string_or("")};
}

MaybeRead chat_whole(const Json& body) {
  const Json& choices = body["choices"];
  if (!choices.is_array() || choices.size() != 1) return std::nullopt;
  const Json& choice = choices.items().front();
  const Json& message = choice["message"];
  if (!message.is_object() || has_other_words(message)) return std::nullopt;
  Read read;
  read.answer.content = message["content"].string_or("");
  read.answer.reasoning = reasoning_of(message);
  for (const Json& call : message["tool_calls"].items()) {
    read.answer.tool_calls.push_back(chat_call(call));
  }
  read.answer.finish_reason = choice["finish_reason"].string_or("");
  read.answer.usage = read_usage(ModelApi::kChat, body);
  read.answer.model = body["model"].string_or("");
  read.whole = true;
  return read;
}

// False when the delta says what a cassette cannot.
bool add_chat_delta(Read& read, const Json& delta) {
  if (has_other_words(delta)) return false;
  read.answer.content += delta["content"].string_or("");
  read.answer.reasoning += reasoning_of(delta);
  auto& calls = read.answer.tool_calls;
  for (const Json& part : delta["tool_calls"].items()) {
    const auto index = static_cast<std::size_t>(part["index"].as_int().value_or(0));
    if (index > calls.size() || index >= kPartsMax) return false;
    if (index == calls.size()) calls.emplace_back();
    const ToolCall more = chat_call(part);
    if (!more.id.empty()) calls[index].id = more.id;
    if (calls[index].name.empty()) calls[index].name = more.name;  // some repeat it
    calls[index].arguments += more.arguments;
  }
  return true;
}

MaybeRead chat_stream(const std::vector<Json>& events) {
  Read read;
  read.answer.finish_reason.clear();
  for (const Json& chunk : events) {
    if (!chunk["choices"].is_array()) return std::nullopt;
    if (const std::string model = chunk["model"].string_or(""); !model.empty()) {
      read.answer.model = model;
    }
    if (chunk["usage"].is_object()) read.answer.usage = read_usage(ModelApi::kChat, chunk);
    for (const Json& choice : chunk["choices"].items()) {
      if (choice["index"].as_int().value_or(0) != 0) return std::nullopt;
      if (!add_chat_delta(read, choice["delta"])) return std::nullopt;
      const std::string finish = choice["finish_reason"].string_or("");
      if (!finish.empty()) read.answer.finish_reason = finish;
    }
  }
  read.whole = !read.answer.finish_reason.empty();
  return read;
}

// ---- Responses ----

// The texts of an item's parts; false when one of them is of another kind.
bool add_parts(std::string& text, const Json& parts, std::string_view kind) {
  for (const Json& part : parts.items()) {
    if (part["type"] != Json(kind) || part["annotations"].size() > 0) return false;
    text += part["text"].string_or("");
  }
  return true;
}

bool add_item(CompletionAnswer& answer, const Json& item) {
  const std::string type = item["type"].string_or("");
  if (type == "message") return add_parts(answer.content, item["content"], "output_text");
  if (type == "reasoning") return add_parts(answer.reasoning, item["summary"], "summary_text");
  if (type != "function_call" || answer.tool_calls.size() >= kPartsMax) return false;
  answer.tool_calls.push_back(
      {item["call_id"].string_or(""), item["name"].string_or(""), item["arguments"].string_or("")});
  return true;
}

MaybeRead response_whole(const Json& body) {
  Read read;
  const std::string status = body["status"].string_or("");
  if (!body["output"].is_array() || (status != "completed" && status != "incomplete")) {
    return std::nullopt;
  }
  for (const Json& item : body["output"].items()) {
    if (!add_item(read.answer, item)) return std::nullopt;
  }
  const std::string reason = body["incomplete_details"]["reason"].string_or("");
  const bool calls = !read.answer.tool_calls.empty();
  read.answer.finish_reason = reason == "max_output_tokens" ? "length"
                              : !reason.empty()             ? reason
                              : calls                       ? "tool_calls"
                                                            : "stop";
  read.answer.usage = read_usage(ModelApi::kResponses, body);
  read.answer.model = body["model"].string_or("");
  read.whole = true;
  return read;
}

// The last event holds the whole response; without it, what the deltas told.
MaybeRead response_stream(const std::vector<Json>& events) {
  Read partial;
  for (const Json& event : events) {
    const std::string type = event["type"].string_or("");
    if (type == "response.completed" || type == "response.incomplete") {
      return response_whole(event["response"]);
    }
    if (type == "response.failed" || type == "error") return std::nullopt;
    if (type == "response.output_text.delta") {
      partial.answer.content += event["delta"].string_or("");
    }
  }
  return partial;
}

// ---- Messages ----

std::string finish_reason(const std::string& stop_reason) {
  if (stop_reason == "end_turn" || stop_reason == "stop_sequence") return "stop";
  if (stop_reason == "max_tokens") return "length";
  if (stop_reason == "tool_use") return "tool_calls";
  if (stop_reason == "refusal") return "content_filter";
  return stop_reason;
}

// `arguments`: of a streamed call, as they came; empty: the block's own input.
bool add_block(CompletionAnswer& answer, const Json& block, const std::string& arguments) {
  const std::string type = block["type"].string_or("");
  if (block["citations"].size() > 0) return false;
  if (type == "text") {
    answer.content += block["text"].string_or("");
  } else if (type == "thinking") {
    answer.reasoning += block["thinking"].string_or("");
  } else if (type == "tool_use") {
    const Json& input = block["input"];
    answer.tool_calls.push_back({block["id"].string_or(""), block["name"].string_or(""),
                                 !arguments.empty() ? arguments
                                 : input.is_null()  ? "{}"
                                                    : input.dump()});
  } else {
    return false;
  }
  return true;
}

MaybeRead message_whole(const Json& body) {
  if (body["type"] != Json("message") || !body["content"].is_array()) return std::nullopt;
  Read read;
  for (const Json& block : body["content"].items()) {
    if (!add_block(read.answer, block, "")) return std::nullopt;
  }
  read.answer.finish_reason = finish_reason(body["stop_reason"].string_or(""));
  read.answer.usage = read_usage(ModelApi::kMessages, body);
  read.answer.model = body["model"].string_or("");
  read.whole = true;
  return read;
}

// A stream's blocks come one after the other; each is added when it has stopped.
class MessageEvents {
 public:
  MaybeRead read(const std::vector<Json>& events) && {
    for (const Json& event : events) {
      if (!add(event)) return std::nullopt;
    }
    if (!end_block()) return std::nullopt;
    if (usage_.find("usage") != nullptr) {
      read_.answer.usage = read_usage(ModelApi::kMessages, usage_);
    }
    return std::move(read_);
  }

 private:
  bool add(const Json& event) {
    const std::string type = event["type"].string_or("");
    if (type == "error") return false;
    if (type == "message_start") {
      read_.answer.model = event["message"]["model"].string_or("");
      add_usage(event["message"]);
    } else if (type == "content_block_start") {
      if (!end_block() || ++blocks_ > kPartsMax) return false;
      block_ = event["content_block"];
    } else if (type == "content_block_delta") {
      const Json& delta = event["delta"];
      if (delta["citation"].is_object()) return false;
      text_ += delta["text"].string_or("");
      text_ += delta["thinking"].string_or("");
      text_ += delta["partial_json"].string_or("");
    } else if (type == "message_delta") {
      read_.answer.finish_reason = finish_reason(event["delta"]["stop_reason"].string_or(""));
      add_usage(event);
    } else if (type == "message_stop") {
      read_.whole = true;
    }
    return true;
  }
  bool end_block() {
    if (block_.is_null()) return true;
    if (block_["type"] == Json("text")) block_.set("text", block_["text"].string_or("") + text_);
    if (block_["type"] == Json("thinking")) {
      block_.set("thinking", block_["thinking"].string_or("") + text_);
    }
    const bool known = add_block(read_.answer, block_, text_);
    block_ = Json();
    text_.clear();
    return known;
  }
  // Later counts replace earlier ones.
  void add_usage(const Json& holder) {
    if (!holder["usage"].is_object()) return;
    Json usage = usage_["usage"];
    for (const auto& [name, value] : holder["usage"].members()) usage.set(name, value);
    usage_.set("usage", std::move(usage));
  }

  Read read_;
  Json block_;
  std::string text_;
  Json usage_;
  std::size_t blocks_ = 0;
};

// ---- all three ----

bool is_event_stream(const net::HttpResponse& answer) {
  return ascii_lower(answer.headers.get_or("Content-Type", "")).starts_with("text/event-stream");
}

// The events of a stream as JSON, without [DONE]; nothing when one of them is none.
std::optional<std::vector<Json>> read_events(const std::string& body) {
  std::vector<Json> events;
  bool all_json = true;
  net::EventStreamReader reader;
  try {
    reader.take(body, [&](const net::StreamEvent& event) {
      if (event.data == "[DONE]" || !all_json) return;
      auto data = Json::try_parse(event.data);
      all_json = data && data->is_object();
      if (all_json) events.push_back(*std::move(data));
    });
  } catch (const InvalidResponse&) {
    return std::nullopt;  // then the stream is told as it came
  }
  return all_json ? std::make_optional(std::move(events)) : std::nullopt;
}

MaybeRead read_completion(ModelApi api, const net::HttpResponse& answer) {
  if (is_event_stream(answer)) {
    const auto events = read_events(answer.body);
    if (!events) return std::nullopt;
    if (api == ModelApi::kChat) return chat_stream(*events);
    if (api == ModelApi::kResponses) return response_stream(*events);
    return MessageEvents().read(*events);
  }
  const auto body = Json::try_parse(answer.body);
  if (!body || !body->is_object() || (*body)["error"].is_object()) return std::nullopt;
  if (api == ModelApi::kChat) return chat_whole(*body);
  if (api == ModelApi::kResponses) return response_whole(*body);
  return message_whole(*body);
}

// The same every time, or what a client acts upon; ids, dates and cookies are neither.
bool is_kept(std::string_view name) {
  static constexpr std::array kKept = {"content-type", "retry-after", "retry-after-ms",
                                       "x-should-retry"};
  const std::string lower = ascii_lower(name);
  return std::find(kKept.begin(), kKept.end(), lower) != kKept.end() ||
         lower.starts_with("x-ratelimit-") || lower.starts_with("anthropic-ratelimit-");
}

RawAnswer raw(const net::HttpResponse& answer) {
  RawAnswer kept;
  kept.status = answer.status;
  for (const auto& [name, value] : answer.headers) {
    if (is_kept(name)) kept.headers.set(name, value);
  }
  const auto body = Json::try_parse(answer.body);
  const bool structured = body && (body->is_object() || body->is_array());
  kept.body = structured ? body->dump() : to_valid_utf8(answer.body);
  return kept;
}

}  // namespace

RecordedAnswer read_answer(ModelApi api, const net::HttpResponse& answer) {
  if (answer.status != 200) return raw(answer);
  MaybeRead read = read_completion(api, answer);
  if (!read) return raw(answer);
  if (read->whole) return std::move(read->answer);
  DrillAnswer cut;
  cut.drill = Drill::kTruncate;
  if (read->answer.finish_reason.empty()) read->answer.finish_reason = "stop";
  cut.answer = std::move(read->answer);
  return cut;
}

}  // namespace necrocode::llm
