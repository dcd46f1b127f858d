// llm_probe QUESTION: one call of LLMClient, for tests/peers/contracts. QUESTION is a JSON object:
// provider, endpoint, model, api_key, mode (chat, stream, generate_code, models, health), prompt,
// tools (names of tools without parameters), schema (a JSON schema), max_tokens, retries,
// timeout_seconds, deadline_ms. Prints one line of JSON, {"ok":true,…} or
// {"ok":false,"error":"RateLimited",…}; its exit status is 0 in both cases, 2 for a question that
// is none.
#include <cstdio>
#include <iostream>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/llm/client.hpp"

namespace {

using necrocode::CallContext;
using necrocode::ChatRequest;
using necrocode::ChatResponse;
using necrocode::Json;
using necrocode::LLMClient;
using necrocode::llm::ChatDelta;
using std::chrono::milliseconds;

// Short, so that a check of some hundred calls takes seconds; the other side's hints stand above
// it.
constexpr milliseconds kRetryBase{5};

necrocode::LLMConfig config(const Json& question) {
  necrocode::LLMConfig config;
  config.provider = question["provider"].string_or("openai-chat");
  config.endpoint = question["endpoint"].string_or("");
  config.model = question["model"].string_or("probe");
  config.api_key = necrocode::Secret(question["api_key"].string_or(""));
  config.timeout_seconds = question["timeout_seconds"].as_double().value_or(10);
  config.retry.retries = static_cast<int>(question["retries"].as_int().value_or(2));
  config.retry.base = kRetryBase;
  return config;
}

ChatRequest request(const Json& question) {
  ChatRequest request;
  request.messages.push_back({"user", question["prompt"].string_or("")});
  request.max_tokens = static_cast<int>(question["max_tokens"].as_int().value_or(0));
  request.json_schema = question["schema"];
  for (const Json& name : question["tools"].items()) {
    const Json nothing = Json::object({{"type", "object"}, {"properties", Json::object()}});
    request.tools.push_back({name.string_or(""), "A tool.", nothing});
  }
  return request;
}

CallContext context(const Json& question) {
  const auto deadline = question["deadline_ms"].as_int();
  return deadline ? CallContext().within(milliseconds(*deadline)) : CallContext();
}

Json told(const ChatResponse& response) {
  Json calls = Json::array();
  for (const auto& call : response.tool_calls) {
    calls.push_back(
        Json::object({{"id", call.id}, {"name", call.name}, {"arguments", call.arguments}}));
  }
  return Json::object({{"ok", true},
                       {"content", response.content},
                       {"reasoning", response.reasoning},
                       {"tool_calls", std::move(calls)},
                       {"model", response.model},
                       {"finish_reason", response.finish_reason},
                       {"usage", response.usage.to_json()},
                       {"estimated", response.usage.estimated},
                       {"attempts", response.attempts},
                       {"duration_ms", response.duration.count()}});
}

/// The pieces as a caller puts them together.
struct Pieces {
  std::string text, reasoning, arguments;
  int count = 0;
  int restarts = 0;

  void take(const ChatDelta& delta) {
    ++count;
    switch (delta.kind) {
      case ChatDelta::Kind::kText:
        text += delta.text;
        return;
      case ChatDelta::Kind::kReasoning:
        reasoning += delta.text;
        return;
      case ChatDelta::Kind::kToolCall:
        arguments += delta.text;
        return;
      case ChatDelta::Kind::kRestart:
        break;
    }
    text.clear();
    reasoning.clear();
    arguments.clear();
    ++restarts;
  }
  void tell(Json& outcome) const {
    outcome.set("pieces", Json::object({{"text", text},
                                        {"reasoning", reasoning},
                                        {"arguments", arguments},
                                        {"count", count},
                                        {"restarts", restarts}}));
  }
};

Json told(const necrocode::LLMResponse& response) {
  Json files = Json::array();
  for (const auto& change : response.code_changes) files.push_back(change.file_path);
  return Json::object({{"ok", true},
                       {"files", std::move(files)},
                       {"explanation", response.explanation},
                       {"model", response.model},
                       {"usage", response.usage.to_json()},
                       {"estimated", response.usage.estimated},
                       {"attempts", response.attempts},
                       {"duration_ms", response.duration.count()}});
}

template <class Error>
bool is_a(const necrocode::RunnerError& error) {
  return dynamic_cast<const Error*>(&error) != nullptr;
}

std::string class_of(const necrocode::RunnerError& error) {
  using namespace necrocode;
  // A class stands before those it derives from.
  if (is_a<TimeoutError>(error)) return "TimeoutError";
  if (is_a<Unavailable>(error)) return "Unavailable";
  if (is_a<RateLimited>(error)) return "RateLimited";
  if (is_a<Unauthorized>(error)) return "Unauthorized";
  if (is_a<NotFound>(error)) return "NotFound";
  if (is_a<ContextLengthExceeded>(error)) return "ContextLengthExceeded";
  if (is_a<InvalidResponse>(error)) return "InvalidResponse";
  if (is_a<ServiceError>(error)) return "ServiceError";
  if (is_a<ImplementationError>(error)) return "ImplementationError";
  if (is_a<SecurityError>(error)) return "SecurityError";
  if (is_a<ConfigError>(error)) return "ConfigError";
  return "RunnerError";
}

Json told(const necrocode::RunnerError& error) {
  const necrocode::ErrorInfo& info = error.info();
  Json retry_in_ms;
  if (info.retry_at) {
    const auto wait = *info.retry_at - std::chrono::system_clock::now();
    retry_in_ms = std::chrono::duration_cast<milliseconds>(wait).count();
  }
  return Json::object({{"ok", false},
                       {"error", class_of(error)},
                       {"summary", error.summary()},
                       {"status", info.status},
                       {"end", necrocode::to_string(info.end)},
                       {"attempts", info.attempts},
                       {"detail", info.detail},
                       {"partial", info.partial},
                       {"maybe_accepted", info.maybe_accepted},
                       {"retry_in_ms", std::move(retry_in_ms)}});
}

Json health(LLMClient& client) {
  const auto health = client.health_check();
  return Json::object({{"ok", health.healthy}, {"detail", health.detail}});
}

/// Throws std::invalid_argument for a mode that is none.
Json ask(const Json& question) {
  const std::string mode = question["mode"].string_or("chat");
  Pieces pieces;
  Json outcome;
  try {
    LLMClient client(config(question));
    if (mode == "health") return health(client);
    if (mode == "models") {
      return Json::object({{"ok", true}, {"models", client.models(context(question))}});
    }
    if (mode == "generate_code") {
      outcome = told(client.generate_code(question["prompt"].string_or(""), {},
                                          request(question).max_tokens, context(question)));
    } else if (mode == "chat") {
      outcome = told(client.chat(request(question), context(question)));
    } else if (mode == "stream") {
      const auto take = [&](const ChatDelta& delta) { pieces.take(delta); };
      outcome = told(client.stream(request(question), take, context(question)));
    } else {
      throw std::invalid_argument("unknown mode: " + mode);
    }
  } catch (const necrocode::RunnerError& error) {
    outcome = told(error);
  }
  if (mode == "stream") pieces.tell(outcome);
  return outcome;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: llm_probe QUESTION\n", stderr);
    return 2;
  }
  try {
    const auto start = std::chrono::steady_clock::now();
    Json outcome = ask(Json::parse(argv[1], "the question"));
    outcome.set(
        "wall_ms",
        std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - start).count());
    std::cout << outcome.dump() << "\n";
  } catch (const std::exception& error) {
    std::fprintf(stderr, "llm_probe: %s\n", error.what());
    return 2;
  }
  return 0;
}
