// What may be wrong in an LLMConfig, or in a question.
#include <algorithm>
#include <set>

#include "necrocode/base/text.hpp"
#include "necrocode/llm/endpoint.hpp"

namespace necrocode::llm {
namespace {

constexpr double kTimeoutSecondsMax = 86'400;
constexpr double kRateMax = 1e9;
constexpr std::size_t kToolNameBytes = 64;  // OpenAI's limit, and Anthropic's
constexpr std::size_t kToolsMax = 128;      // OpenAI's

bool is_visible_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

// Azure's, and nothing that could be a key.
bool is_api_version(std::string_view query) {
  constexpr std::string_view kName = "api-version=";
  const auto plain = [](char c) { return is_ascii_alnum(c) || c == '-' || c == '.'; };
  return query.starts_with(kName) && query.size() > kName.size() &&
         std::all_of(query.begin() + kName.size(), query.end(), plain);
}

class ConfigCheck {
 public:
  void look_at(const LLMConfig& config, std::string where) {
    where_ = std::move(where);
    check_endpoint(config);
    if (!is_visible_ascii(config.api_key.reveal()))
      add("api_key", "must be one line of visible ASCII without spaces");
    if (find_dialect(config.provider) == nullptr)
      add("provider", "must be one of " + known_dialects());
    if (config.model.empty()) add("model", "must not be empty");
    check_time("timeout_seconds", config.timeout_seconds, false);
    check_time("connect_timeout_seconds", config.connect_timeout_seconds, false);
    check_time("idle_timeout_seconds", config.idle_timeout_seconds, true);
    check_time("progress_timeout_seconds", config.progress_timeout_seconds, true);
    check_time("min_request_interval", config.min_request_interval, true);
    check_rate("requests_per_minute", config.requests_per_minute);
    check_rate("tokens_per_minute", config.tokens_per_minute);
    if (config.max_tokens < 1) add("max_tokens", "must be at least 1");
    if (!(config.temperature >= 0 && config.temperature <= 2))
      add("temperature", "must be between 0 and 2");
  }
  const std::vector<FieldError>& errors() const { return errors_; }

 private:
  void add(const std::string& name, std::string what) {
    errors_.push_back({where_ + "." + name, std::move(what)});
  }
  void check_endpoint(const LLMConfig& config) {
    const auto url = net::Url::parse(config.endpoint);
    const std::size_t query = config.endpoint.find_first_of("?#");
    if (!url) {
      add("endpoint", "must be an http or https URL");
    } else if (!url->user_info.empty()) {
      add("endpoint", "must not hold credentials; the key goes into api_key");
    } else if (query != std::string::npos &&
               !is_api_version(std::string_view(config.endpoint).substr(query + 1))) {
      add("endpoint", "must not have a query (but ?api-version=…) or a fragment");
    } else if (!config.api_key.empty() && url->scheme == "http" && !url->is_loopback()) {
      add("endpoint", "the API key is only sent over https, or to this machine");
    }
  }
  void check_time(const char* name, double seconds, bool may_be_zero) {
    const bool enough = seconds > 0 || (may_be_zero && seconds == 0);
    if (enough && seconds <= kTimeoutSecondsMax) return;
    add(name, std::string("must be ") + (may_be_zero ? "0 to 86400" : "above 0 and at most 86400"));
  }
  void check_rate(const char* name, double rate) {
    if (!(rate >= 0 && rate <= kRateMax)) add(name, "must be 0 (no limit) or more");
  }

  std::string where_;
  std::vector<FieldError> errors_;
};

bool is_tool_name(std::string_view name) {
  return !name.empty() && name.size() <= kToolNameBytes &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return is_ascii_alnum(c) || c == '_' || c == '-'; });
}

class QuestionCheck {
 public:
  explicit QuestionCheck(const ChatRequest& request) {
    if (request.messages.empty()) add("/messages", "must hold at least one message");
    for (std::size_t i = 0; i < request.messages.size(); ++i) check_message(request.messages[i], i);
    check_tools(request);
    if (request.temperature && !(*request.temperature >= 0 && *request.temperature <= 2))
      add("/temperature", "must be between 0 and 2");
    if (!request.json_schema.is_null() && !request.json_schema.is_object())
      add("/json_schema", "must be an object or null");
  }
  const std::vector<FieldError>& errors() const { return errors_; }

 private:
  void add(std::string pointer, std::string what) {
    errors_.push_back({std::move(pointer), std::move(what)});
  }
  void check_message(const Message& message, std::size_t number) {
    const std::string at = "/messages/" + std::to_string(number);
    static const std::set<std::string, std::less<>> kRoles = {"system", "user", "assistant",
                                                              "tool"};
    if (!kRoles.contains(message.role))
      add(at + "/role", "must be system, user, assistant or tool");
    if (message.role == "tool" && message.tool_call_id.empty())
      add(at + "/tool_call_id", "must name the call that this is the result of");
    if (message.role != "assistant" && !message.tool_calls.empty())
      add(at + "/tool_calls", "only an assistant's message calls tools");
  }
  void check_tools(const ChatRequest& request) {
    if (request.tools.size() > kToolsMax)
      add("/tools", "must not be more than " + std::to_string(kToolsMax));
    std::set<std::string> names;
    for (std::size_t i = 0; i < request.tools.size(); ++i) {
      const Tool& tool = request.tools[i];
      const std::string at = "/tools/" + std::to_string(i);
      if (!is_tool_name(tool.name)) add(at + "/name", "must be 1 to 64 letters, digits, _ or -");
      if (!names.insert(tool.name).second) add(at + "/name", "stands twice");
      if (!tool.parameters.is_object()) add(at + "/parameters", "must be a JSON schema, an object");
    }
    if (!is_general_choice(request.tool_choice) && !names.contains(request.tool_choice))
      add("/tool_choice", "must be auto, none, required or the name of one of the tools");
  }
  std::vector<FieldError> errors_;
};

}  // namespace

void check(const LLMConfig& config) {
  ConfigCheck check;
  check.look_at(config, "llm");
  for (std::size_t i = 0; i < config.fallbacks.size(); ++i) {
    check.look_at(config.fallbacks[i], "llm.fallbacks." + std::to_string(i));
  }
  if (check.errors().empty()) return;
  ErrorInfo info;
  info.service = "llm";
  info.fields = check.errors();
  throw ConfigError("invalid model service configuration", std::move(info));
}

void check(const ChatRequest& request) {
  const QuestionCheck check(request);
  if (check.errors().empty()) return;
  ErrorInfo info;
  info.fields = check.errors();
  throw TaskContextValidationError("the question to the model is wrong", std::move(info));
}

}  // namespace necrocode::llm
