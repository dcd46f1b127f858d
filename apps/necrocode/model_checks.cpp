#include "model_checks.hpp"

#include <algorithm>
#include <functional>

namespace necrocode::app {
namespace {

// Enough for a model that thinks first.
constexpr int kTokens = 512;

ChatRequest question(const std::string& text) {
  ChatRequest request;
  request.messages = {{"user", text}};
  request.max_tokens = kTokens;
  return request;
}

std::string counted(std::size_t count, const std::string& what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

// Runs one check; what it throws is its detail.
ModelCheck check(const std::string& name, const std::function<void(ModelCheck&)>& body) {
  ModelCheck result;
  result.name = name;
  try {
    body(result);
  } catch (const RunnerError& error) {
    result.ok = false;
    result.detail = error.what();
  }
  return result;
}

void check_models(ModelCheck& result, LLMClient& client, const CallContext& context) {
  const std::vector<std::string> models = client.models(context);
  const bool listed = std::find(models.begin(), models.end(), client.model()) != models.end();
  result.ok = true;
  result.detail = counted(models.size(), "model") + ", " + client.model() +
                  (listed ? " among them" : " not among them");
}

void check_stream(ModelCheck& result, LLMClient& client, const CallContext& context) {
  std::size_t pieces = 0;
  const auto count = [&pieces](const llm::ChatDelta& delta) {
    if (delta.kind == llm::ChatDelta::Kind::kText) ++pieces;
  };
  client.stream(question("Count from one to ten, in words."), count, context);
  result.ok = client.capabilities()["stream"] == Json(true);
  result.detail = result.ok ? "the answer came in " + counted(pieces, "piece")
                            : "refused; answers are asked for whole";
}

void check_schema(ModelCheck& result, LLMClient& client, const CallContext& context) {
  ChatRequest request = question("What is two and two? Answer as JSON: {\"sum\": number}.");
  const Json sum = Json::object({{"type", "integer"}});
  request.json_schema = Json::object({{"type", "object"},
                                      {"properties", Json::object({{"sum", sum}})},
                                      {"required", std::vector<std::string>{"sum"}},
                                      {"additionalProperties", false}});
  const ChatResponse answer = client.chat(request, context);
  const std::string format = client.capabilities()["format"].string_or("");
  const auto json = Json::try_parse(answer.content);
  result.ok = format == "json_schema" && json && (*json)["sum"].is_int();
  result.detail = "asked for by " + format + ", answered " +
                  (json ? "JSON" : "text, in which the runner looks for JSON");
}

void check_tools(ModelCheck& result, LLMClient& client, const CallContext& context) {
  ChatRequest request = question("Tell the weather in Rome by calling the tool.");
  const Json city = Json::object({{"type", "string"}});
  request.tools = {{"weather", "Tells the weather of a city.",
                    Json::object({{"type", "object"},
                                  {"properties", Json::object({{"city", city}})},
                                  {"required", std::vector<std::string>{"city"}}})}};
  request.tool_choice = "required";
  const ChatResponse answer = client.chat(request, context);
  result.ok = !answer.tool_calls.empty();
  result.detail = result.ok ? answer.tool_calls[0].name + " " + answer.tool_calls[0].arguments
                            : "answered in words";
}

}  // namespace

std::vector<ModelCheck> check_model(LLMClient& client, const CallContext& context) {
  std::vector<ModelCheck> checks;
  checks.push_back(check("models", [&](ModelCheck& one) { check_models(one, client, context); }));
  llm::Usage usage;
  ModelCheck answered = check("answer", [&](ModelCheck& one) {
    const ChatResponse answer = client.chat(question("Say ok."), context);
    usage = answer.usage;
    one.ok = true;
    one.detail = answer.model + " in " + std::to_string(answer.duration.count()) + " ms, " +
                 counted(static_cast<std::size_t>(answer.attempts), "attempt");
  });
  answered.required = true;
  checks.push_back(answered);
  if (!answered.ok) return checks;
  checks.push_back(check("usage", [&](ModelCheck& one) {
    one.ok = !usage.estimated;
    one.detail = one.ok ? std::to_string(usage.prompt_tokens) + " + " +
                              std::to_string(usage.completion_tokens) + " tokens"
                        : "not told; it is estimated";
    if (usage.cost_usd) one.detail += ", " + Json(*usage.cost_usd).dump() + " US dollars";
  }));
  checks.push_back(check("stream", [&](ModelCheck& one) { check_stream(one, client, context); }));
  checks.push_back(
      check("json_schema", [&](ModelCheck& one) { check_schema(one, client, context); }));
  checks.push_back(check("tools", [&](ModelCheck& one) { check_tools(one, client, context); }));
  return checks;
}

}  // namespace necrocode::app
