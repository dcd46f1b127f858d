// OpenAI Responses (platform.openai.com/docs/api-reference/responses). Nothing is kept at the
// service: each request holds the whole conversation.
#include "necrocode/llm/dialect.hpp"
#include "necrocode/llm/json_view.hpp"

namespace necrocode::llm {
namespace {

void add_items(Json& input, const Message& message) {
  if (message.role == "tool") {
    input.push_back(Json::object({{"type", "function_call_output"},
                                  {"call_id", message.tool_call_id},
                                  {"output", message.content}}));
    return;
  }
  if (!message.content.empty() || message.tool_calls.empty()) {
    input.push_back(Json::object({{"role", message.role}, {"content", message.content}}));
  }
  for (const ToolCall& call : message.tool_calls) {
    input.push_back(Json::object({{"type", "function_call"},
                                  {"call_id", call.id},
                                  {"name", call.name},
                                  {"arguments", call.arguments}}));
  }
}

void add_tools(Json& body, const ChatRequest& request) {
  if (request.tools.empty()) return;
  Json tools = Json::array();
  for (const Tool& tool : request.tools) {
    tools.push_back(Json::object({{"type", "function"},
                                  {"name", tool.name},
                                  {"description", tool.description},
                                  {"parameters", tool.parameters},
                                  {"strict", false}}));
  }
  body.set("tools", std::move(tools));
  if (request.tool_choice.empty()) return;
  if (is_general_choice(request.tool_choice)) {
    body.set("tool_choice", request.tool_choice);
  } else {
    body.set("tool_choice", Json::object({{"type", "function"}, {"name", request.tool_choice}}));
  }
}

Json text_format(const Json& schema, Format format) {
  if (format == Format::kJsonObject) return Json::object({{"type", "json_object"}});
  return Json::object(
      {{"type", "json_schema"}, {"name", "answer"}, {"strict", true}, {"schema", schema}});
}

void read_usage(JsonView usage, TokenCounts& counts) {
  if (!usage.is_object()) return;
  counts.prompt = usage["input_tokens"].count(kTokensMax);
  counts.completion = usage["output_tokens"].count(kTokensMax);
  counts.total = usage["total_tokens"].count(kTokensMax);
  counts.cached = count_or_zero(usage["input_tokens_details"]["cached_tokens"]);
  counts.reasoning = count_or_zero(usage["output_tokens_details"]["reasoning_tokens"]);
}

// Why it cannot be taken; empty when it can.
std::string read_item(JsonView item, Completion& completion) {
  const std::string_view type = item["type"].text();
  if (type == "message") {
    item["content"].each([&](JsonView part) {
      completion.content.append(part["text"].text());
      completion.refusal.append(part["refusal"].text());
    });
  } else if (type == "reasoning") {
    const auto add = [&](JsonView part) { completion.reasoning.append(part["text"].text()); };
    item["summary"].each(add);
    item["content"].each(add);
  } else if (type == "function_call") {
    return add_tool_call(completion,
                         {std::string(item["call_id"].text()), std::string(item["name"].text()),
                          arguments_text(item["arguments"])});
  }
  return {};
}

std::string read_output(JsonView output, Completion& completion) {
  std::string defect;
  output.each([&](JsonView item) {
    const std::string reason = read_item(item, completion);
    if (defect.empty()) defect = reason;
  });
  return defect;
}

struct End {
  std::string reason;
  Finish meaning = Finish::kNone;
};

End end_of(JsonView response, bool calls_tools) {
  const std::string status(response["status"].text());
  if (status == "completed") return {status, calls_tools ? Finish::kToolCalls : Finish::kStop};
  if (status == "failed" || status == "cancelled") return {status, Finish::kFailed};
  if (status != "incomplete") return {};
  const std::string reason(response["incomplete_details"]["reason"].text());
  return {reason.empty() ? status : reason,
          reason == "content_filter" ? Finish::kFiltered : Finish::kLength};
}

class OpenAiResponses final : public Dialect {
 public:
  std::string_view name() const override { return "openai-responses"; }
  std::string_view path() const override { return "/responses"; }
  void authorize(net::Headers& headers, std::string_view key) const override {
    headers.add("Authorization", "Bearer " + std::string(key));
  }

  std::string request_body(const ChatRequest& request, const std::string& model,
                           const Capabilities& capabilities, bool stream) const override {
    Json input = Json::array();
    for (const Message& message : request.messages) add_items(input, message);
    Json body = Json::object({{"model", model}});
    body.set("input", std::move(input)).set("stream", stream).set("store", false);
    body.set("max_output_tokens", request.max_tokens);
    if (capabilities.temperature && request.temperature)
      body.set("temperature", *request.temperature);
    if (!request.json_schema.is_null() && capabilities.format != Format::kText) {
      body.set("text",
               Json::object({{"format", text_format(request.json_schema, capabilities.format)}}));
    }
    add_tools(body, request);
    return body.dump();
  }

  std::string read_answer(JsonView body, Completion& completion) const override {
    if (!body["output"].is_array()) return "it has no output";
    const std::string defect = read_output(body["output"], completion);
    completion.model = body["model"].text();
    read_usage(body["usage"], completion.counts);
    End end = end_of(body, !completion.tool_calls.empty());
    if (end.meaning == Finish::kNone) return "its status is not one of an ended response";
    completion.finish_reason = std::move(end.reason);
    completion.finish = end.meaning;
    return defect;
  }

  // Every event names its type in its data, too; some services leave out the event's own name.
  void read_event(std::string_view event, JsonView data, AnswerPieces& pieces) const override {
    if (tells_an_error(data["error"])) pieces.fail(read_error(data.dump()));
    const std::string_view named = data["type"].text();
    const std::string_view type = named.empty() ? event : named;
    const auto number =
        static_cast<std::size_t>(data["output_index"].count(kOutputsMax).value_or(0));
    if (type == "response.output_text.delta") {
      pieces.text(data["delta"].text());
    } else if (type == "response.refusal.delta") {
      pieces.refusal(data["delta"].text());
    } else if (type == "response.reasoning_summary_text.delta" ||
               type == "response.reasoning_text.delta") {
      pieces.reasoning(data["delta"].text());
    } else if (type == "response.output_item.added") {
      const JsonView item = data["item"];
      if (item["type"].text() == "function_call") {
        pieces.tool_call(number, item["call_id"].text(), item["name"].text(), {});
      }
    } else if (type == "response.function_call_arguments.delta") {
      pieces.tool_call(number, {}, {}, data["delta"].text());
    } else if (type == "response.function_call_arguments.done") {
      if (!data["arguments"].text().empty()) {
        pieces.whole_arguments(number, data["arguments"].text());
      }
    } else if (type == "response.failed" || type == "error") {
      read_usage(data["response"]["usage"], pieces.completion().counts);
      pieces.fail(read_error(data.dump()));
    } else if (type == "response.completed" || type == "response.incomplete") {
      end(data["response"], type == "response.completed", pieces);
    }
  }

 private:
  static constexpr std::int64_t kOutputsMax = 1'000'000;

  // The response as it ended counts, where it is told: some services send little before it.
  static void end(JsonView response, bool is_complete, AnswerPieces& pieces) {
    Completion& completion = pieces.completion();
    Completion whole;
    const std::string defect = read_output(response["output"], whole);
    if (!defect.empty()) pieces.malformed(defect);
    if (completion.content.empty()) pieces.text(whole.content);
    if (completion.refusal.empty()) pieces.refusal(whole.refusal);
    if (!whole.content.empty()) completion.content = std::move(whole.content);
    if (!whole.reasoning.empty()) completion.reasoning = std::move(whole.reasoning);
    if (!whole.refusal.empty()) completion.refusal = std::move(whole.refusal);
    if (!whole.tool_calls.empty()) completion.tool_calls = std::move(whole.tool_calls);
    if (response["model"].is_string()) completion.model = response["model"].text();
    read_usage(response["usage"], completion.counts);
    End end = end_of(response, !completion.tool_calls.empty());
    if (end.meaning == Finish::kNone) {  // its own status is missing: the event's name tells
      end = is_complete ? End{"completed", Finish::kStop} : End{"incomplete", Finish::kLength};
    }
    pieces.finish(end.reason, end.meaning);
    pieces.end();
  }
};

}  // namespace

const Dialect& openai_responses() {
  static const OpenAiResponses kDialect;
  return kDialect;
}

}  // namespace necrocode::llm
