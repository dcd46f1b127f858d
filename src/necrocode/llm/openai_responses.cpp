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

void read_item(JsonView item, Completion& completion) {
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
  } else if (type == "function_call" && completion.tool_calls.size() < kToolCallsMax) {
    completion.tool_calls.push_back({std::string(item["call_id"].text()),
                                     std::string(item["name"].text()),
                                     std::string(item["arguments"].text())});
  }
}

// How the response stands: its end, model and usage.
void read_state(JsonView response, Completion& completion) {
  if (response["model"].is_string()) completion.model = response["model"].text();
  read_usage(response["usage"], completion.counts);
  const std::string_view status = response["status"].text();
  if (status == "completed") {
    completion.finish_reason = status;
    completion.finish = completion.tool_calls.empty() ? Finish::kStop : Finish::kToolCalls;
  } else if (status == "incomplete") {
    const std::string_view reason = response["incomplete_details"]["reason"].text();
    completion.finish_reason = reason.empty() ? status : reason;
    completion.finish = reason == "content_filter" ? Finish::kFiltered : Finish::kLength;
  } else if (status == "failed" || status == "cancelled") {
    completion.finish_reason = status;
    completion.finish = Finish::kFailed;
  }
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

  void read_answer(JsonView body, Completion& completion) const override {
    if (!body["output"].is_array()) not_a_completion("it has no output", body.dump(), 200);
    body["output"].each([&](JsonView item) { read_item(item, completion); });
    read_state(body, completion);
    if (completion.finish == Finish::kNone) {
      not_a_completion("its status is not one of an ended response", body.dump(), 200);
    }
  }

  // Every event names its type in its data, too; some services leave out the event's own name.
  void read_event(std::string_view event, JsonView data, AnswerPieces& pieces) const override {
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
        pieces.tool_call(number, item["call_id"].text(), item["name"].text(),
                         item["arguments"].text());
      }
    } else if (type == "response.function_call_arguments.delta") {
      pieces.tool_call(number, {}, {}, data["delta"].text());
    } else if (type == "response.failed" || type == "error") {
      pieces.fail(read_error(data.dump()));
    } else if (type == "response.completed" || type == "response.incomplete") {
      end(data["response"], pieces);
    }
  }

 private:
  static constexpr std::int64_t kOutputsMax = 1'000'000;

  // Some services send the output only with the last event.
  static void end(JsonView response, AnswerPieces& pieces) {
    Completion& completion = pieces.completion();
    if (completion.content.empty() && completion.tool_calls.empty() && completion.refusal.empty()) {
      Completion whole;
      response["output"].each([&](JsonView item) { read_item(item, whole); });
      pieces.text(whole.content);
      pieces.refusal(whole.refusal);
      for (std::size_t i = 0; i < whole.tool_calls.size(); ++i) {
        const ToolCall& call = whole.tool_calls[i];
        pieces.tool_call(i, call.id, call.name, call.arguments);
      }
    }
    read_state(response, completion);
  }
};

}  // namespace

const Dialect& openai_responses() {
  static const OpenAiResponses kDialect;
  return kDialect;
}

}  // namespace necrocode::llm
