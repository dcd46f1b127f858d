#include "necrocode/llm/client.hpp"

#include <algorithm>

#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/trace_context.hpp"
#include "necrocode/llm/code_question.hpp"
#include "necrocode/llm/endpoint.hpp"
#include "necrocode/llm/model_metrics.hpp"
#include "necrocode/llm/rate_governor.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode {
namespace {

using llm::ModelCall;
using llm::ModelEndpoint;
using std::chrono::milliseconds;

constexpr std::string_view kService = "llm";

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

/// Whether another endpoint may answer what this one could not.
bool another_may_answer(const RunnerError& error, const CallContext& context, const Clock& clock) {
  if (is_a<TimeoutError>(error)) {
    return error.info().end != CallEnd::kCancelled && !context.expired(clock);
  }
  return is_a<Unauthorized>(error) || is_a<RateLimited>(error) || is_a<Unavailable>(error) ||
         is_a<NotFound>(error) || is_a<ContextLengthExceeded>(error) ||
         is_a<InvalidResponse>(error);
}

/// `config` with what it shares with its fallbacks.
LLMConfig completed(LLMConfig config) {
  llm::check(config);
  if (!config.http) config.http = net::shared_http_client();
  if (!config.governor) {
    config.governor = std::make_shared<llm::RateGovernor>(*config.environment.clock);
  }
  if (!config.capabilities) config.capabilities = std::make_shared<llm::CapabilityTable>();
  for (LLMConfig& fallback : config.fallbacks) {
    if (!fallback.http) fallback.http = config.http;
    if (!fallback.governor) fallback.governor = config.governor;
    if (!fallback.capabilities) fallback.capabilities = config.capabilities;
    if (!fallback.prices) fallback.prices = config.prices;
    fallback.environment = config.environment;
  }
  return config;
}

std::shared_ptr<const Masker> make_masker(const LLMConfig& config) {
  std::vector<const Secret*> keys;
  // Shorter ones are placeholders of local servers ("none"), and parts of ordinary words.
  const auto add = [&keys](const Secret& key) {
    if (key.reveal().size() >= limits::kSecretBytesMin) keys.push_back(&key);
  };
  add(config.api_key);
  for (const LLMConfig& fallback : config.fallbacks) add(fallback.api_key);
  return std::make_shared<const Masker>(keys);
}

/// What the listener threw: not to be taken for anything that a service did.
struct ListenerFailure {
  std::exception_ptr thrown;
};

llm::OnDelta guarded(const llm::OnDelta& on_delta) {
  if (!on_delta) return {};
  return [&on_delta](const llm::ChatDelta& delta) {
    try {
      on_delta(delta);
    } catch (...) {
      throw ListenerFailure{std::current_exception()};
    }
  };
}

std::vector<ModelEndpoint> make_endpoints(LLMConfig config) {
  config = completed(std::move(config));
  const std::shared_ptr<const Masker> masker = make_masker(config);
  std::vector<LLMConfig> fallbacks = std::exchange(config.fallbacks, {});
  std::vector<ModelEndpoint> endpoints;
  endpoints.reserve(1 + fallbacks.size());
  endpoints.emplace_back(std::move(config), masker);
  for (LLMConfig& fallback : fallbacks) endpoints.emplace_back(std::move(fallback), masker);
  return endpoints;
}

/// An endpoint that said when to ask again.
struct Limited {
  std::exception_ptr error;
  ModelCall call;  // as it stood then
};

/// The error of the last endpoint; but where that was out of reach, what another said of when it
/// will answer is worth more.
[[noreturn]] void throw_last(const RunnerError& last, const std::optional<Limited>& limited,
                             ModelCall& call) {
  const bool out_of_reach = is_a<Unavailable>(last) || is_a<TimeoutError>(last);
  if (!limited || !out_of_reach) throw;
  call.asked = limited->call.asked;
  call.status = limited->call.status;
  call.request_id = limited->call.request_id;
  call.partial = limited->call.partial;
  std::rethrow_exception(limited->error);
}

}  // namespace

struct LLMClient::State {
  explicit State(LLMConfig config) : endpoints(make_endpoints(std::move(config))) {}

  const std::vector<ModelEndpoint> endpoints;  // the configured one and its fallbacks

  const ModelEndpoint& first() const { return endpoints.front(); }
  const Clock& clock() const { return *first().config().environment.clock; }
  milliseconds since(SteadyTime start) const {
    return std::chrono::duration_cast<milliseconds>(clock().steady_now() - start);
  }

  ChatResponse exchange(ModelCall& call, const ChatRequest& request, bool stream,
                        const llm::OnDelta& on_delta, const CallContext& context) const;
  ChatResponse ask_any(ModelCall& call, const ChatRequest& request, bool stream,
                       const llm::OnDelta& on_delta, const CallContext& context) const;
  /// Runs `body`, completes the errors that leave it, and tells of the call: to `spending`, the
  /// log, and whoever observes calls.
  template <class Body>
  auto told(std::string operation, const std::filesystem::path& workspace,
            const CallContext& context, llm::Spending* spending, Body body) const;
  const ModelEndpoint& asked(const ModelCall& call) const {
    return call.asked != nullptr ? *call.asked : first();
  }
  ErrorInfo completed(const ModelCall& call, ErrorInfo info) const;
  void report(const ModelCall& call, const std::filesystem::path& workspace, SteadyTime start,
              const RunnerError* error) const;
};

// The first endpoint that answers. Whoever listens learns that what one began is void.
ChatResponse LLMClient::State::ask_any(ModelCall& call, const ChatRequest& request, bool stream,
                                       const llm::OnDelta& on_delta,
                                       const CallContext& context) const {
  bool told = false;
  llm::OnDelta listening;
  if (on_delta) {
    listening = [&](const llm::ChatDelta& delta) {
      told = delta.kind != llm::ChatDelta::Kind::kRestart;
      on_delta(delta);
    };
  }
  std::optional<Limited> limited;
  for (const ModelEndpoint& endpoint : endpoints) {
    try {
      return endpoint.ask(call, request, stream, listening, context);
    } catch (const RunnerError& error) {
      call.maybe_accepted = call.maybe_accepted || error.info().maybe_accepted;
      if (!limited && is_a<RateLimited>(error) && error.info().retry_at) {
        limited = Limited{std::current_exception(), call};
      }
      if (!another_may_answer(error, context, clock())) throw;
      if (&endpoint == &endpoints.back()) throw_last(error, limited, call);
      log::warn("model service failed, asking the next", {{"service", kService},
                                                          {"endpoint", endpoint.base()},
                                                          {"model", endpoint.config().model},
                                                          {"error", error.summary()}});
    }
    if (std::exchange(told, false)) on_delta({llm::ChatDelta::Kind::kRestart, {}, 0});
  }
  throw std::logic_error("a model client without an endpoint");
}

ChatResponse LLMClient::State::exchange(ModelCall& call, const ChatRequest& request, bool stream,
                                        const llm::OnDelta& on_delta,
                                        const CallContext& context) const {
  llm::check(request);
  const SteadyTime start = clock().steady_now();
  ChatResponse response = ask_any(call, request, stream, on_delta, context);
  response.request_id = call.request_id;
  response.attempts = call.attempts;
  response.maybe_billed_twice = call.maybe_accepted;
  response.duration = since(start);
  return response;
}

ErrorInfo LLMClient::State::completed(const ModelCall& call, ErrorInfo info) const {
  const ModelEndpoint& endpoint = asked(call);
  info.service = kService;
  info.operation = call.operation;
  info.target = endpoint.config().model + " at " + endpoint.base();
  info.attempts = std::max(info.attempts, call.attempts);
  if (info.status == 0) info.status = call.status;
  if (info.request_id.empty()) info.request_id = call.request_id;
  info.maybe_accepted = info.maybe_accepted || call.maybe_accepted;
  info.detail = endpoint.safe(info.detail);
  info.partial = endpoint.safe_partial(info.partial.empty() ? call.partial : info.partial);
  for (FieldError& field : info.fields) field.message = endpoint.safe(field.message);
  return info;
}

template <class Body>
auto LLMClient::State::told(std::string operation, const std::filesystem::path& workspace,
                            const CallContext& context, llm::Spending* spending, Body body) const {
  ModelCall call;
  call.operation = std::move(operation);
  CallContext own = context;
  if (const auto parent = TraceContext::parse(context.traceparent)) {
    call.parent_span_id = parent->span_id;
    call.span = parent->child();
    own.traceparent = call.span->traceparent();
  }
  const SteadyTime start = clock().steady_now();
  const auto ended = [&](const RunnerError* error) {
    if (spending != nullptr) spending->add(call.usage);
    report(call, workspace, start, error);
  };
  try {
    if (spending != nullptr) spending->require_left();
    auto result = body(call, own);
    ended(nullptr);
    return result;
  } catch (const RunnerError& error) {
    ended(&error);
    ErrorInfo info = completed(call, error.info());
    // Each attempt met silence: that is a timeout, not a broken connection.
    if (is_a<Unavailable>(error) && is_timeout(info.cause)) {
      throw TimeoutError(error.summary(), std::move(info));
    }
    // A class stands before those it derives from.
    throw_as<TimeoutError, Unavailable, llm::SpendCapReached, RateLimited, Unauthorized, NotFound,
             ContextLengthExceeded, InvalidResponse, ServiceError, ImplementationError,
             SecurityError, TaskContextValidationError>(error, info);
    throw;
  } catch (const ListenerFailure& failure) {
    const RunnerError ended_by("ended by its listener");
    ended(&ended_by);
    std::rethrow_exception(failure.thrown);
  } catch (...) {
    const RunnerError ended_by("ended by a defect of this program, or for want of memory");
    ended(&ended_by);
    throw;
  }
}

void LLMClient::State::report(const ModelCall& call, const std::filesystem::path& workspace,
                              SteadyTime start, const RunnerError* error) const {
  const auto duration = clock().steady_now() - start;
  log::info("model call", {{"service", kService},
                           {"operation", call.operation},
                           {"model", asked(call).config().model},
                           {"endpoint", asked(call).base()},
                           {"workspace", workspace.string()},
                           {"status", call.status},
                           {"attempts", call.attempts},
                           {"duration_ms", since(start).count()},
                           {"tokens", call.usage.total_tokens},
                           {"request_id", call.request_id},
                           {"error", error ? error->summary() : std::string()}});
  if (!first().config().on_call) return;
  llm::ModelCallReport told;
  told.service = kService;
  told.operation = call.operation;
  told.method = "POST";
  told.status = call.status;
  told.attempts = call.attempts;
  if (error != nullptr) {
    told.end = error->info().end == CallEnd::kNone ? CallEnd::kPermanent : error->info().end;
  }
  told.duration = duration;
  told.began = clock().system_now() - std::chrono::duration_cast<SystemTime::duration>(duration);
  told.model = asked(call).config().model;
  told.usage = call.usage;
  told.maybe_billed_twice = call.maybe_accepted;
  if (call.span) {
    told.trace_id = call.span->trace_id;
    told.span_id = call.span->span_id;
    told.parent_span_id = call.parent_span_id;
  }
  first().config().on_call(told);
}

LLMClient::LLMClient(LLMConfig config) : state_(std::make_unique<State>(std::move(config))) {}
LLMClient::~LLMClient() = default;
LLMClient::LLMClient(LLMClient&&) noexcept = default;

ChatResponse LLMClient::chat(const ChatRequest& request, const CallContext& context,
                             llm::Spending* spending) {
  return state_->told("chat", {}, context, spending, [&](ModelCall& call, const CallContext& own) {
    return state_->exchange(call, request, false, {}, own);
  });
}

ChatResponse LLMClient::stream(const ChatRequest& request, const llm::OnDelta& on_delta,
                               const CallContext& context, llm::Spending* spending) {
  return state_->told("stream", {}, context, spending,
                      [&](ModelCall& call, const CallContext& own) {
                        return state_->exchange(call, request, true, guarded(on_delta), own);
                      });
}

LLMResponse LLMClient::generate_code(const std::string& prompt,
                                     const std::filesystem::path& workspace_path, int max_tokens,
                                     const CallContext& context, llm::Spending* spending) {
  ChatRequest request;
  request.messages = {{"system", std::string(llm::code_system_prompt())}, {"user", prompt}};
  request.max_tokens = max_tokens;
  request.json_schema = llm::code_change_schema();
  const auto ask = [&](ModelCall& call, const CallContext& own) {
    ChatResponse answer = state_->exchange(call, request, true, {}, own);
    LLMResponse response;
    response.code_changes =
        llm::parse_code_changes(answer.content, response.explanation, state_->asked(call).masker());
    response.raw = std::move(answer.content);
    response.model = std::move(answer.model);
    response.usage = answer.usage;
    response.attempts = answer.attempts;
    response.duration = answer.duration;
    return response;
  };
  return state_->told("generate_code", workspace_path, context, spending, ask);
}

std::vector<std::string> LLMClient::models(const CallContext& context) {
  return state_->told("models", {}, context, nullptr, [&](ModelCall& call, const CallContext& own) {
    return state_->first().models(call, own);
  });
}

net::HealthStatus LLMClient::health_check() {
  net::HealthStatus health;
  const ModelEndpoint& endpoint = state_->first();
  const SteadyTime start = state_->clock().steady_now();
  health.breaker = endpoint.breaker();
  try {
    const int status = endpoint.probe();
    health.healthy = status < 500 && status != 401 && status != 403;
    health.detail = health.healthy ? "ok" : "the model service answered " + std::to_string(status);
  } catch (const std::exception& error) {
    health.detail = endpoint.safe(error.what());
  }
  health.latency = state_->since(start);
  return health;
}

const std::string& LLMClient::model() const {
  return state_->first().config().model;
}
const std::string& LLMClient::endpoint() const {
  return state_->first().base();
}

Json LLMClient::capabilities() const {
  const llm::Capabilities known = state_->first().capabilities();
  return Json::object({{"format", to_string(known.format)},
                       {"stream", known.stream},
                       {"stream_options", known.stream_options},
                       {"max_tokens", known.max_tokens},
                       {"temperature", known.temperature}});
}

}  // namespace necrocode
