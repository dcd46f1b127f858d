#include "necrocode/llm/client.hpp"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "necrocode/base/ids.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/masking.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/openai_chat.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode {
namespace {

namespace dialect = llm::openai_chat;
using std::chrono::milliseconds;

constexpr std::string_view kService = "llm";
constexpr std::string_view kProvider = "openai-chat";
constexpr milliseconds kHealthTimeout{5'000};
constexpr double kTimeoutSecondsMax = 86'400;
constexpr std::size_t kMaskableBytesMin = 8;  // Masker's own floor
constexpr std::size_t kRequestIdBytes = 128;

// Under 2 KB, so that it is cheap to send with every call.
constexpr std::string_view kSystemPrompt =
    R"(You change source code in a git repository. Answer with exactly one JSON object and nothing
else: no prose, no Markdown fence. Its form:

{"code_changes":[{"file_path":"src/a.py","operation":"create","content":"all of it","edits":null}],
 "explanation":"one or two sentences"}

Each element of code_changes changes one file:
- "file_path": relative to the repository's root, with "/" between its parts. Never absolute, never
  with "..", never inside .git. Name each file once.
- "operation": "create" for a new file, "modify" for one that exists, "delete" to remove one.
- "content": the whole new text of the file, for create, and for modify if you rewrite the file.
- "edits": for modify, instead of content: a list of {"search","replace"}. Each "search" is copied
  exactly from the file, with its whitespace, and is long enough to occur there only once; it is
  replaced by "replace". Edits apply in order.
- Give either content or edits, the other null. For delete both are null.

Change only what the task needs. Do not weaken, skip or delete tests unless the task says so. All
changes are applied together or not at all; then the repository's tests are run.)";

Json nullable(std::string_view type) {
  return Json(std::vector<std::string>{std::string(type), "null"});
}

Json closed_object(Json::Object properties) {
  Json names = Json::array();
  for (const auto& [name, schema] : properties) names.push_back(name);
  return Json::object({{"type", "object"},
                       {"properties", Json(std::move(properties))},
                       {"required", std::move(names)},
                       {"additionalProperties", false}});
}

// In the subset that OpenAI calls strict: every property required, no others, null for "none".
Json code_change_schema() {
  const Json string = Json::object({{"type", "string"}});
  const Json edit = closed_object({{"search", string}, {"replace", string}});
  const Json change = closed_object(
      {{"file_path", string},
       {"operation",
        Json::object({{"type", "string"},
                      {"enum", std::vector<std::string>{"create", "modify", "delete"}}})},
       {"content", Json::object({{"type", nullable("string")}})},
       {"edits", Json::object({{"type", nullable("array")}, {"items", edit}})}});
  return closed_object({{"code_changes", Json::object({{"type", "array"}, {"items", change}})},
                        {"explanation", string}});
}

bool is_visible_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

void check_endpoint(const LLMConfig& config, std::vector<FieldError>& errors) {
  const auto url = net::Url::parse(config.endpoint);
  if (!url) {
    errors.push_back({"llm.endpoint", "must be an http or https URL"});
  } else if (!url->user_info.empty()) {
    errors.push_back({"llm.endpoint", "must not hold credentials; the key goes into api_key"});
  } else if (config.endpoint.find_first_of("?#") != std::string::npos) {
    errors.push_back({"llm.endpoint", "must not have a query or a fragment"});
  } else if (!config.api_key.empty() && url->scheme == "http" && !url->is_loopback()) {
    errors.push_back({"llm.endpoint", "the API key is only sent over https, or to this machine"});
  }
}

void check(const LLMConfig& config) {
  std::vector<FieldError> errors;
  check_endpoint(config, errors);
  if (!is_visible_ascii(config.api_key.reveal())) {
    errors.push_back({"llm.api_key", "must be one line of visible ASCII without spaces"});
  }
  if (config.provider != kProvider) {
    errors.push_back({"llm.provider", "must be " + std::string(kProvider)});
  }
  if (config.model.empty()) errors.push_back({"llm.model", "must not be empty"});
  if (!(config.timeout_seconds > 0 && config.timeout_seconds <= kTimeoutSecondsMax)) {
    errors.push_back({"llm.timeout_seconds", "must be above 0 and at most 86400"});
  }
  if (config.max_tokens < 1) errors.push_back({"llm.max_tokens", "must be at least 1"});
  if (!(config.temperature >= 0 && config.temperature <= 2)) {
    errors.push_back({"llm.temperature", "must be between 0 and 2"});
  }
  if (errors.empty()) return;
  ErrorInfo info;
  info.service = kService;
  info.fields = std::move(errors);
  throw ConfigError("invalid model service configuration", std::move(info));
}

Masker make_masker(const Secret& key) {
  // Shorter ones are placeholders of local servers ("none"), and parts of ordinary words.
  if (key.reveal().size() < kMaskableBytesMin) return Masker();
  return Masker({&key});
}

bool is_timeout(const std::exception_ptr& cause) {
  try {
    if (cause) std::rethrow_exception(cause);
  } catch (const net::TransportError& error) {
    return error.failure() == net::TransportFailure::kTimeout;
  } catch (...) {
    return false;
  }
  return false;
}

template <class Error>
bool is_a(const RunnerError& error) {
  return dynamic_cast<const Error*>(&error) != nullptr;
}

/// Throws the first of `Errors` that `error` is, with its summary and `info`. Returns when it is
/// none of them.
template <class... Errors>
void throw_as(const RunnerError& error, const ErrorInfo& info) {
  ((is_a<Errors>(error) ? throw Errors(error.summary(), info) : void()), ...);
}

}  // namespace

struct LLMClient::State {
  explicit State(LLMConfig given)
      : config((check(given), std::move(given))), masker(make_masker(config.api_key)) {
    while (config.endpoint.ends_with('/')) config.endpoint.pop_back();
    if (!config.http) config.http = net::shared_http_client();
  }

  LLMConfig config;
  const Masker masker;
  std::mutex mutex;
  dialect::Capabilities capabilities;  // guarded by mutex

  /// What of one call its errors and its log record tell.
  struct Call {
    std::string operation;
    int attempts = 0;
    int status = 0;
    std::string request_id;
    bool maybe_accepted = false;
    llm::Usage* spent = nullptr;  ///< told also of an answer that cannot be used
  };

  ChatResponse exchange(Call& call, ChatRequest request, const CallContext& context);
  net::HttpResponse send(Call& call, const ChatRequest& request, const CallContext& context);
  net::HttpRequest build(const ChatRequest& request, const dialect::Capabilities& used,
                         const CallContext& context) const;
  void authorize(net::HttpRequest& request) const;
  dialect::Capabilities remember(const dialect::Capabilities& learned);
  [[noreturn]] static void refuse(const net::RetryOutcome& outcome);
  std::string safe(std::string_view text) const {
    return shorten(printable(masker.mask_head(text, limits::kModelHeadBytes)),
                   limits::kModelMessageBytes);
  }

  /// Runs `body`, completes the errors that leave it, and writes the call's one log record.
  template <class Body>
  auto told(Call& call, const std::filesystem::path& workspace, Body body);
  ErrorInfo completed(const Call& call, ErrorInfo info) const;
  void log_call(const Call& call, const std::filesystem::path& workspace, milliseconds duration,
                std::string_view error) const;
  milliseconds since(SteadyTime start) const {
    return std::chrono::duration_cast<milliseconds>(config.environment.clock->steady_now() - start);
  }
};

void LLMClient::State::authorize(net::HttpRequest& request) const {
  if (config.api_key.empty()) return;
  request.headers.set("Authorization", "Bearer " + std::string(config.api_key.reveal()));
}

net::HttpRequest LLMClient::State::build(const ChatRequest& request,
                                         const dialect::Capabilities& used,
                                         const CallContext& context) const {
  net::HttpRequest http;
  http.method = "POST";
  http.url = config.endpoint + "/chat/completions";
  http.body = dialect::request_body(request, config.model, used);
  http.headers = {{"Content-Type", "application/json"},
                  {"Accept", "application/json"},
                  {"Idempotency-Key", uuid7()}};
  if (!context.traceparent.empty()) http.headers.set("traceparent", context.traceparent);
  authorize(http);
  http.timeouts.total = context.attempt_timeout.value_or(
      milliseconds(static_cast<std::int64_t>(std::ceil(config.timeout_seconds * 1000))));
  http.response_bytes_max = limits::kModelAnswerBytes;
  return http;
}

dialect::Capabilities LLMClient::State::remember(const dialect::Capabilities& learned) {
  const std::lock_guard lock(mutex);
  capabilities = dialect::common(capabilities, learned);
  return capabilities;
}

// The whole answer, good or bad, after retries and after what the endpoint taught on the way.
net::HttpResponse LLMClient::State::send(Call& call, const ChatRequest& request,
                                         const CallContext& context) {
  dialect::Capabilities used = remember({});
  for (;;) {  // each round takes a capability away, and there are four to take
    const net::RetryOutcome outcome =
        net::send_with_retries(*config.http, build(request, used, context), config.retry, context,
                               config.environment, dialect::worth_retrying);
    call.attempts += outcome.attempts;
    call.status = outcome.response.status;
    call.maybe_accepted = call.maybe_accepted || outcome.maybe_accepted;
    call.request_id =
        shorten(printable(outcome.response.headers.get_or("x-request-id", "")), kRequestIdBytes);
    if (outcome.response.status == 400) {
      const dialect::Capabilities learned =
          remember(dialect::learn(outcome.response, request, used));
      if (learned != used) {
        --call.attempts;
        call.status = 0;
        used = learned;
        continue;
      }
    }
    if (outcome.response.status < 200 || outcome.response.status > 299) refuse(outcome);
    return outcome.response;
  }
}

void LLMClient::State::refuse(const net::RetryOutcome& outcome) {
  const net::HttpResponse& answer = outcome.response;
  const dialect::ErrorWords words = dialect::read_error(answer.body);
  ErrorInfo info;
  info.detail = words.message.empty() ? answer.body : words.message;
  info.end = outcome.end;
  info.retry_at = outcome.retry_at;
  const int status = answer.status;
  const auto is = [&](dialect::Refusal kind) { return dialect::classify(status, words) == kind; };
  if (status < 400) {
    info.end = CallEnd::kPermanent;
    info.detail = "Location: " + answer.headers.get_or("location", "none");
    throw ServiceError("the model service redirects, which is not followed", std::move(info));
  }
  if (status == 401 || status == 403) {
    throw Unauthorized("the model service refused the API key", std::move(info));
  }
  if (is(dialect::Refusal::kContextLength)) {
    throw ContextLengthExceeded("the prompt is longer than the model can read", std::move(info));
  }
  if (is(dialect::Refusal::kQuota)) {
    throw RateLimited("the model service's quota is used up", std::move(info));
  }
  if (status == 429)
    throw RateLimited("the model service limits the rate of calls", std::move(info));
  if (is(dialect::Refusal::kContentFilter)) {
    throw ServiceError("the model service's content filter refused the prompt", std::move(info));
  }
  if (status == 404) {
    throw NotFound("the model service knows no such model or address", std::move(info));
  }
  if (status >= 500) throw Unavailable("the model service failed", std::move(info));
  throw ServiceError("the model service refused the request", std::move(info));
}

ChatResponse LLMClient::State::exchange(Call& call, ChatRequest request,
                                        const CallContext& context) {
  if (request.max_tokens <= 0) request.max_tokens = config.max_tokens;
  if (!request.temperature) request.temperature = config.temperature;
  const SteadyTime start = config.environment.clock->steady_now();
  const net::HttpResponse answer = send(call, request, context);
  llm::Usage unasked;
  ChatResponse response =
      dialect::read_completion(answer, request, call.spent ? *call.spent : unasked);
  if (response.model.empty()) response.model = config.model;
  response.request_id = call.request_id;
  response.attempts = call.attempts;
  response.duration = since(start);
  return response;
}

ErrorInfo LLMClient::State::completed(const Call& call, ErrorInfo info) const {
  info.service = kService;
  info.operation = call.operation;
  info.target = config.model + " at " + config.endpoint;
  info.attempts +=
      call.attempts;  // the loop's own count, when it threw, is not in call.attempts yet
  if (info.status == 0) info.status = call.status;
  if (info.request_id.empty()) info.request_id = call.request_id;
  info.maybe_accepted = info.maybe_accepted || call.maybe_accepted;
  info.detail = safe(info.detail);
  for (FieldError& field : info.fields) field.message = safe(field.message);
  return info;
}

template <class Body>
auto LLMClient::State::told(Call& call, const std::filesystem::path& workspace, Body body) {
  const SteadyTime start = config.environment.clock->steady_now();
  try {
    auto result = body();
    log_call(call, workspace, since(start), {});
    return result;
  } catch (const RunnerError& error) {
    log_call(call, workspace, since(start), error.summary());
    ErrorInfo info = completed(call, error.info());
    // Each attempt met silence: that is a timeout, not a broken connection.
    if (is_a<Unavailable>(error) && is_timeout(info.cause)) {
      throw TimeoutError(error.summary(), std::move(info));
    }
    // A class stands before those it derives from.
    throw_as<TimeoutError, Unavailable, RateLimited, Unauthorized, NotFound, ContextLengthExceeded,
             InvalidResponse, ServiceError, ImplementationError, SecurityError>(error, info);
    throw;
  }
}

void LLMClient::State::log_call(const Call& call, const std::filesystem::path& workspace,
                                milliseconds duration, std::string_view error) const {
  log::info("model call", {{"service", kService},
                           {"operation", call.operation},
                           {"model", config.model},
                           {"workspace", workspace.string()},
                           {"status", call.status},
                           {"attempts", call.attempts},
                           {"duration_ms", duration.count()},
                           {"request_id", call.request_id},
                           {"error", error}});
}

LLMClient::LLMClient(LLMConfig config) : state_(std::make_unique<State>(std::move(config))) {}
LLMClient::~LLMClient() = default;
LLMClient::LLMClient(LLMClient&&) noexcept = default;

ChatResponse LLMClient::chat(const ChatRequest& request, const CallContext& context) {
  State::Call call;
  call.operation = "chat";
  return state_->told(call, {}, [&] { return state_->exchange(call, request, context); });
}

LLMResponse LLMClient::generate_code(const std::string& prompt,
                                     const std::filesystem::path& workspace_path, int max_tokens,
                                     const CallContext& context, llm::Usage* spent) {
  ChatRequest request;
  request.messages = {{"system", std::string(kSystemPrompt)}, {"user", prompt}};
  request.max_tokens = max_tokens;
  request.json_schema = code_change_schema();
  State::Call call;
  call.operation = "generate_code";
  call.spent = spent;
  return state_->told(call, workspace_path, [&] {
    ChatResponse answer = state_->exchange(call, request, context);
    LLMResponse response;
    response.code_changes =
        llm::parse_code_changes(answer.content, response.explanation, state_->masker);
    response.raw = std::move(answer.content);
    response.model = std::move(answer.model);
    response.usage = answer.usage;
    response.attempts = answer.attempts;
    response.duration = answer.duration;
    return response;
  });
}

net::HealthStatus LLMClient::health_check() {
  net::HealthStatus health;
  const SteadyTime start = state_->config.environment.clock->steady_now();
  try {
    net::HttpRequest request;
    request.url = state_->config.endpoint + "/models";
    request.timeouts.total = kHealthTimeout;
    state_->authorize(request);
    const int status = state_->config.http->send(request, {}).status;
    health.healthy = status < 500 && status != 401 && status != 403;
    health.detail = health.healthy ? "ok" : "the model service answered " + std::to_string(status);
  } catch (const std::exception& error) {
    health.detail = state_->safe(error.what());
  }
  health.latency = state_->since(start);
  return health;
}

const std::string& LLMClient::model() const {
  return state_->config.model;
}
const std::string& LLMClient::endpoint() const {
  return state_->config.endpoint;
}

}  // namespace necrocode
