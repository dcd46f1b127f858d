#include "necrocode/llm/endpoint.hpp"

#include <algorithm>
#include <cmath>

#include "necrocode/base/ids.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/answer_stream.hpp"
#include "necrocode/llm/prices.hpp"

namespace necrocode::llm {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kModelsTimeout{5'000};
constexpr int kStreamTimes = 10;  // as long as a whole answer may take
constexpr std::size_t kRequestIdBytes = 128;
constexpr std::size_t kPartialBytes = 64 * limits::kKiB;  // of a broken answer, kept in its error

milliseconds to_milliseconds(double seconds) {
  return milliseconds(static_cast<std::int64_t>(std::ceil(seconds * 1000)));
}

bool is_azure(const net::Url& url) {
  return url.host.ends_with(".azure.com") || url.path.find("api-version=") != std::string::npos;
}

// Every vendor's name for it.
std::string_view raw_request_id(const net::Headers& headers) {
  for (const char* name : {"x-request-id", "request-id", "apim-request-id"}) {
    if (const auto id = headers.get(name)) return *id;
  }
  return {};
}

// Anthropic's addresses are given without the version, as its own clients take them.
std::string base_of(const Dialect& dialect, const std::string& endpoint) {
  std::string base = endpoint.substr(0, endpoint.find('?'));
  while (base.ends_with('/')) base.pop_back();
  if (&dialect == &anthropic() && !base.ends_with("/v1")) base += "/v1";
  return base;
}

/// Each attempt takes its turn, is counted, and its answer tells how many more may follow.
class Governed final : public net::HttpClient {
 public:
  Governed(const LLMConfig& config, const std::string& key, const RateLimits& limits,
           std::int64_t tokens, const AnswerStream& stream, ModelCall& call)
      : config_(config),
        key_(key),
        limits_(limits),
        tokens_(tokens),
        stream_(stream),
        call_(call) {}

  // A turn is waited for no longer than a retry is: a service may say tomorrow.
  net::HttpResponse send(const net::HttpRequest& request, const CallContext& context) override {
    const CallContext patient = context.within(config_.retry.wait_max, *config_.environment.clock);
    permit_ = config_.governor->acquire(key_, limits_, tokens_, patient);
    ++call_.attempts;
    net::HttpResponse answer = exchange(request, context);
    config_.governor->learn(key_, answer.status, answer.headers);
    return answer;
  }
  net::HostGuards& hosts() override { return config_.http->hosts(); }
  void settle(const Usage& usage) { permit_.settle(usage.total_tokens); }

 private:
  // An answer that is whole is one, though its connection stays open or breaks.
  net::HttpResponse exchange(const net::HttpRequest& request, const CallContext& context) {
    try {
      return config_.http->send(request, context);
    } catch (const net::TransportError& error) {
      const bool broke = error.failure() == net::TransportFailure::kTimeout ||
                         error.failure() == net::TransportFailure::kReset;
      if (!broke || !stream_.complete() || stream_.failure()) throw;
      return stream_.head();
    }
  }

  const LLMConfig& config_;
  const std::string& key_;
  const RateLimits& limits_;
  const std::int64_t tokens_;
  const AnswerStream& stream_;
  ModelCall& call_;
  RateGovernor::Permit permit_;
};

[[noreturn]] void refuse_redirect(const net::RetryOutcome& outcome) {
  ErrorInfo info;
  info.status = outcome.response.status;
  info.end = CallEnd::kPermanent;
  info.detail = "Location: " + outcome.response.headers.get_or("location", "none");
  throw ServiceError("the model service redirects, which is not followed", std::move(info));
}

[[noreturn]] void refuse(const net::RetryOutcome& outcome) {
  const net::HttpResponse& answer = outcome.response;
  if (answer.status < 400) refuse_redirect(outcome);
  const ErrorWords words = read_error(answer.body);
  ErrorInfo info;
  info.detail = words.message.empty() ? answer.body : words.message;
  info.end = outcome.end;
  info.retry_at = outcome.retry_at;
  throw_refusal(answer.status, words, std::move(info));
}

[[noreturn]] void throw_broken_off(const net::RetryOutcome& outcome) {
  ErrorInfo info;
  info.end = outcome.end;
  info.maybe_accepted = true;
  throw Unavailable("the model's answer broke off: it ended without saying so", std::move(info));
}

bool is_success(int status) {
  return status >= 200 && status <= 299;
}

}  // namespace

ModelEndpoint::ModelEndpoint(LLMConfig config, std::shared_ptr<const Masker> masker)
    : config_(std::move(config)),
      dialect_(*find_dialect(config_.provider)),
      base_(base_of(dialect_, config_.endpoint)),
      masker_(std::move(masker)) {
  const std::size_t query = config_.endpoint.find('?');
  if (query != std::string::npos) query_ = config_.endpoint.substr(query);
  const std::string_view key = config_.api_key.reveal();
  service_key_ = base_ + " " + config_.model + " " + config_.provider;
  const net::Url url = *net::Url::parse(config_.endpoint);
  rate_key_ = rate_key(url.origin(), key, config_.model);
  limits_.requests_per_minute = config_.requests_per_minute;
  limits_.tokens_per_minute = config_.tokens_per_minute;
  if (!url.is_loopback()) limits_.min_interval = to_milliseconds(config_.min_request_interval);
  if (!key.empty() && is_azure(url)) {
    headers_.add("api-key", std::string(key));
  } else if (!key.empty()) {
    dialect_.authorize(headers_, key);
  }
  dialect_.add_headers(headers_);
}

net::HttpRequest ModelEndpoint::bare_request(std::string_view path) const {
  net::HttpRequest request;
  request.url = base_ + std::string(path);
  if (!query_.empty()) {
    request.url += path.find('?') == std::string_view::npos ? query_ : "&" + query_.substr(1);
  }
  request.headers = headers_;
  return request;
}

milliseconds ModelEndpoint::attempt_timeout(const CallContext& context) const {
  return context.attempt_timeout.value_or(to_milliseconds(config_.timeout_seconds));
}

milliseconds ModelEndpoint::progress_timeout(const CallContext& context) const {
  const double own = config_.progress_timeout_seconds;
  return own > 0 ? to_milliseconds(own) : attempt_timeout(context);
}

void ModelEndpoint::set_timeouts(net::HttpTimeouts& timeouts, bool stream,
                                 const CallContext& context) const {
  const milliseconds attempt = attempt_timeout(context);
  timeouts.connect = to_milliseconds(config_.connect_timeout_seconds);
  timeouts.total = stream ? kStreamTimes * attempt : attempt;
  if (!stream) return;
  const double idle = config_.idle_timeout_seconds;
  timeouts.first_byte = attempt;
  timeouts.idle = idle > 0 ? to_milliseconds(idle) : attempt;
}

net::HttpRequest ModelEndpoint::build(const ChatRequest& request, const Capabilities& used,
                                      bool stream, const CallContext& context) const {
  net::HttpRequest http = bare_request(dialect_.path());
  http.method = "POST";
  http.body = dialect_.request_body(request, config_.model, used, stream);
  http.headers.add("Content-Type", "application/json");
  http.headers.add("Accept", stream ? "text/event-stream, application/json" : "application/json");
  http.headers.add("Idempotency-Key", uuid7());
  if (!context.traceparent.empty()) http.headers.add("traceparent", context.traceparent);
  set_timeouts(http.timeouts, stream, context);
  http.response_bytes_max = limits::kModelAnswerBytes;
  return http;
}

// One question to the endpoint as it is known, retries included. Nothing when it was refused for
// something that is now left out of `used`.
std::optional<Completion> ModelEndpoint::exchange(ModelCall& call, const ChatRequest& request,
                                                  Capabilities& used, bool may_stream,
                                                  const OnDelta& on_delta,
                                                  const CallContext& context) const {
  const bool streamed = may_stream && used.stream;
  AnswerStream stream(dialect_, request, on_delta, progress_timeout(context));
  std::optional<Completion> completion;
  try {
    completion = converse(call, request, used, streamed, stream, context);
  } catch (...) {
    call.usage += price(stream.spent());
    call.partial = stream.so_far().content;
    if (call.request_id.empty()) call.request_id = request_id_of(stream.head().headers);
    throw;
  }
  call.usage += price(stream.lost());
  if (completion && !streamed) tell_whole(*completion, on_delta);
  return completion;
}

std::optional<Completion> ModelEndpoint::converse(ModelCall& call, const ChatRequest& request,
                                                  Capabilities& used, bool streamed,
                                                  AnswerStream& stream,
                                                  const CallContext& context) const {
  net::HttpRequest http = build(request, used, streamed, context);
  if (streamed) stream.receive(http);
  Governed client(config_, rate_key_, limits_, estimate_prompt_tokens(request) + request.max_tokens,
                  stream, call);
  const auto worth = [&](const net::HttpResponse& answer) {
    return is_success(answer.status) ? streamed && stream.broke_off() : worth_retrying(answer);
  };
  net::RetryOutcome outcome;
  try {
    outcome =
        net::send_with_retries(client, http, config_.retry, context, config_.environment, worth);
  } catch (const Unavailable& error) {
    if (!stream.failure()) throw;
    throw_refusal(status_of(*stream.failure()), *stream.failure(), error.info());
  }
  const net::HttpResponse& answer = outcome.response;
  call.status = answer.status;
  call.request_id = request_id_of(answer.headers);
  call.maybe_accepted = call.maybe_accepted || outcome.maybe_accepted;
  const Capabilities learned = learn(answer, request, streamed, used);
  if (learned != used) {
    used = learned;
    --call.attempts;
    call.status = 0;
    client.settle({});
    return std::nullopt;
  }
  if (!is_success(answer.status)) refuse(outcome);
  if (streamed && stream.broke_off()) throw_broken_off(outcome);
  Completion completion =
      streamed ? stream.finish() : read_whole(dialect_, answer.body, answer.status);
  client.settle(usage_of(completion, request));
  return completion;
}

// What was told of the endpoint asked before is not this one's.
void ModelEndpoint::begin(ModelCall& call) const {
  call.asked = this;
  call.status = 0;
  call.request_id.clear();
  call.partial.clear();
}

ChatResponse ModelEndpoint::ask(ModelCall& call, ChatRequest request, bool stream,
                                const OnDelta& on_delta, const CallContext& context) const {
  begin(call);
  if (request.max_tokens <= 0) request.max_tokens = config_.max_tokens;
  if (!request.temperature) request.temperature = config_.temperature;
  const Capabilities known = capabilities();
  Capabilities used = known;
  std::optional<Completion> completion;
  while (!completion) {  // each round takes a capability away, and there are few
    completion = exchange(call, request, used, stream, on_delta, context);
  }
  // Only now it is known that this was what it refused.
  if (used != known) config_.capabilities->learn(service_key_, used);
  const Usage own = price(usage_of(*completion, request), completion->model);
  call.usage += own;
  ChatResponse response = to_response(std::move(*completion), request);
  response.usage = own;
  if (response.model.empty()) response.model = config_.model;
  response.endpoint = base_;
  return response;
}

Usage ModelEndpoint::price(Usage usage, const std::string& answered) const {
  if (!config_.prices || usage.empty()) return usage;
  usage.cost_usd = config_.prices->cost(answered, usage);
  if (!usage.cost_usd) usage.cost_usd = config_.prices->cost(config_.model, usage);
  return usage;
}

Capabilities ModelEndpoint::capabilities() const {
  return config_.capabilities->of(service_key_);
}

std::vector<std::string> ModelEndpoint::models(ModelCall& call, const CallContext& context) const {
  begin(call);
  net::HttpRequest request = bare_request(dialect_.models_path());
  request.timeouts.total = kModelsTimeout;
  const net::RetryOutcome outcome = net::send_with_retries(
      *config_.http, request, config_.retry, context, config_.environment,
      [](const net::HttpResponse& answer) { return worth_retrying(answer); });
  call.attempts = outcome.attempts;
  call.status = outcome.response.status;
  if (!is_success(call.status)) refuse(outcome);
  const auto body = Json::try_parse(outcome.response.body);
  if (!body || !(*body)["data"].is_array()) {
    not_a_completion("it is no list of models", outcome.response.body, call.status);
  }
  std::vector<std::string> ids;
  for (const Json& model : (*body)["data"].items()) {
    if (const auto id = model["id"].as_string()) ids.emplace_back(printable(*id));
  }
  return ids;
}

int ModelEndpoint::probe() const {
  net::HttpRequest request = bare_request("/models");
  request.timeouts.total = kModelsTimeout;
  return config_.http->send(request, {}).status;
}

net::BreakerState ModelEndpoint::breaker() const {
  return config_.http->hosts().of(base_)->breaker.state(real_clock().steady_now());
}

std::string ModelEndpoint::request_id_of(const net::Headers& headers) const {
  return shorten(safe(raw_request_id(headers)), kRequestIdBytes);
}

std::string ModelEndpoint::safe(std::string_view text) const {
  return shorten(printable(masker_->mask_head(text, limits::kModelHeadBytes)),
                 limits::kModelMessageBytes);
}

std::string ModelEndpoint::safe_partial(std::string_view text) const {
  return masker_->mask_head(text, kPartialBytes);
}

}  // namespace necrocode::llm
