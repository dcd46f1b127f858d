#include "necrocode/net/service_caller.hpp"

#include <algorithm>

#include "necrocode/base/ids.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/base/trace_context.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::net {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kDetailBytes = 497;  // 500 with the ellipsis of what was cut
constexpr const char* kHealthy = "ok";
constexpr std::size_t kFieldErrorsMax = 100;
constexpr std::size_t kTokenBytesMin = 8;
constexpr std::size_t kTokenBytesMax = 8 * limits::kKiB;

[[noreturn]] void refuse(const std::string& service, std::string key, std::string why) {
  ErrorInfo info;
  info.service = service;
  info.fields.push_back({std::move(key), std::move(why)});
  throw ConfigError("the client of " + service + " cannot be configured", std::move(info));
}

/// Without a slash at the end. No message repeats the URL: it may be the place of a credential.
std::string checked_base_url(const std::string& service, const std::string& text) {
  const auto url = Url::parse(text);
  if (!url) refuse(service, "base_url", "not an absolute http or https URL");
  if (!url->user_info.empty()) refuse(service, "base_url", "must not contain credentials");
  if (text.find_first_of("?#") != std::string::npos) {
    refuse(service, "base_url", "must have neither a query nor a fragment");
  }
  std::string base = url->origin() + url->path;
  while (base.ends_with('/')) base.pop_back();
  return base;
}

void check_token(const std::string& service, const std::string& base_url, const Secret& token) {
  if (token.empty()) return;
  const std::string_view text = token.reveal();
  const bool visible =
      std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (!visible) refuse(service, "token", "must be one word of visible ASCII characters");
  if (text.size() < kTokenBytesMin || text.size() > kTokenBytesMax) {
    refuse(service, "token", "must have 8 to 8192 characters");
  }
  const auto url = Url::parse(base_url);
  if (url->scheme != "https" && !url->is_loopback()) {
    refuse(service, "token", "is not sent over http to another host than loopback");
  }
}

Masker masker_for(const Secret& token) {
  return token.empty() ? Masker() : Masker({&token});
}

bool is_mutating(std::string_view method) {
  return method != "GET" && method != "HEAD" && method != "OPTIONS";
}

bool is_success(int status) {
  return status / 100 == 2 || status == 304;
}

std::optional<Json> problem_of(const HttpResponse& response) {
  if (response.headers.get_or("Content-Type", "").find("json") == std::string::npos)
    return std::nullopt;
  return Json::try_parse(response.body);
}

/// The words of a problem (RFC 9457), or of the frameworks that answer {"detail"} or {"error"}.
std::string words_of(const Json& problem) {
  for (const std::string_view name : {"detail", "title", "message", "error"}) {
    const Json& member = problem[name];
    if (const auto text = member.as_string(); text && !text->empty()) return std::string(*text);
    if (const auto text = member["message"].as_string(); text) return std::string(*text);
  }
  return {};
}

/// One line, masked, bounded.
std::string safe_words(std::string_view text, const Masker& masker) {
  return shorten(printable(masker.mask_head(text, 16 * kDetailBytes)), kDetailBytes);
}

std::vector<FieldError> fields_of(const HttpResponse& response, const Masker& masker) {
  std::vector<FieldError> fields;
  const auto problem = problem_of(response);
  if (!problem) return fields;
  for (const Json& error : (*problem)["errors"].items()) {
    if (fields.size() == kFieldErrorsMax) break;
    const std::string message = error["message"].string_or(error["detail"].string_or(""));
    fields.push_back(
        {safe_words(error["pointer"].string_or(""), masker), safe_words(message, masker)});
  }
  return fields;
}

std::string request_id_of(const HttpResponse& response) {
  return printable(shorten(response.headers.get_or("X-Request-Id", ""), 128));
}

/// Where a redirect leads, without what may be a credential: user information and query.
std::string location_of(const HttpResponse& response) {
  std::string location = response.headers.get_or("Location", "no Location");
  if (const auto url = Url::parse(location)) location = url->origin() + url->path;
  return location.substr(0, location.find('?'));
}

ErrorInfo with_call(ErrorInfo info, const std::string& service, const ServiceCall& call) {
  info.service = service;
  info.operation = call.operation;
  info.target = call.target;
  return info;
}

/// The one record of a call: its log line, and the report for who counts or traces.
class CallRecord {
 public:
  CallRecord(const std::string& service, const ServiceCall& call, const ServiceOptions& options,
             const CallContext& context)
      : options_(options), begin_(options.environment.clock->steady_now()) {
    report.service = service;
    report.operation = call.operation;
    report.method = call.method;
    report.began = options.environment.clock->system_now();
    const auto parent = TraceContext::parse(context.traceparent);
    if (!parent) return;
    span_ = parent->child();
    report.trace_id = span_->trace_id;
    report.span_id = span_->span_id;
    report.parent_span_id = parent->span_id;
  }
  ~CallRecord() {
    report.duration = options_.environment.clock->steady_now() - begin_;
    if (options_.on_call) options_.on_call(report);
    if (!log::enabled(log::Level::kDebug)) return;
    const auto duration = std::chrono::duration<double, std::milli>(report.duration);
    log::debug("service call", {{"service", report.service},
                                {"operation", report.operation},
                                {"method", report.method},
                                {"status", report.status},
                                {"attempts", report.attempts},
                                {"end", to_string(report.end)},
                                {"duration_ms", duration.count()},
                                {"bytes", report.bytes},
                                {"trace_id", report.trace_id},
                                {"span_id", report.span_id}});
  }
  CallRecord(const CallRecord&) = delete;
  CallRecord& operator=(const CallRecord&) = delete;

  /// What the service is to take as its parent; empty without a trace.
  std::string traceparent() const { return span_ ? span_->traceparent() : std::string(); }
  void failed(const ErrorInfo& info) {
    report.status = info.status;
    report.attempts = info.attempts;
    report.end = info.end;
  }

  CallReport report;

 private:
  const ServiceOptions& options_;
  const SteadyTime begin_;
  std::optional<TraceContext> span_;
};

}  // namespace

ServiceCaller::ServiceCaller(std::string service, ServiceOptions options, milliseconds timeout)
    : base_url_(checked_base_url(service, options.base_url)),
      service_(std::move(service)),
      options_(std::move(options)),
      timeout_(options_.timeout.value_or(timeout)),
      http_(options_.http ? options_.http : shared_http_client()) {
  check_token(service_, base_url_, options_.token);
  masker_ = masker_for(options_.token);
}

HttpResponse ServiceCaller::call(const ServiceCall& call, const CallContext& context) const {
  RetryOutcome outcome = send(call, build(call, context), context);
  // What an earlier attempt may have removed is not there any more.
  const bool removed =
      call.method == "DELETE" && outcome.response.status == 404 && outcome.maybe_accepted;
  if (!is_success(outcome.response.status) && !removed) throw_for(call, outcome);
  return std::move(outcome.response);
}

Json ServiceCaller::call_json(const ServiceCall& call, const CallContext& context) const {
  const HttpResponse response = this->call(call, context);
  if (response.status == 204) return {};
  try {
    return Json::parse(response.body, "the answer");
  } catch (const InvalidResponse& error) {
    ErrorInfo info = with_call(error.info(), service_, call);
    info.status = response.status;
    info.request_id = request_id_of(response);
    info.detail = own_words(response);
    info.cause = std::current_exception();
    throw InvalidResponse(error.summary(), std::move(info));
  }
}

std::optional<Json> ServiceCaller::report(ServiceCall call, const CallContext& context,
                                          bool urgent) const {
  CallSpool* const spool = options_.spool.get();
  if (spool == nullptr) return call_json(call, context);
  // Made here, so that the kept call is the same as the one that may have been carried out.
  if (call.idempotency_key.empty()) call.idempotency_key = uuid7();
  if (urgent || !spool->holds(base_url_, call.target)) {
    const auto later = [&](const RunnerError& error) {
      log::debug("a call is to be kept", {{"target", call.target}, {"error", error.what()}});
    };
    try {
      return call_json(call, context);
    } catch (const Unavailable& error) {
      later(error);
    } catch (const RateLimited& error) {
      later(error);
    } catch (const TimeoutError& error) {
      if (error.info().end == CallEnd::kCancelled) throw;
      later(error);
    }
  }
  spool->keep(service_, base_url_, call);
  return std::nullopt;
}

void ServiceCaller::follow(const std::function<ServiceCall()>& make,
                           const std::function<milliseconds()>& pause,
                           const CallContext& context) const {
  int empty = 0;  // streams in a row
  while (true) {
    ServiceCall stream = make();
    bool moved = false;
    stream.on_body = [&moved, take = std::move(stream.on_body)](std::string_view piece) {
      moved = true;
      return take(piece);
    };
    try {
      const HttpResponse response = call(stream, context);
      const std::string type = response.headers.get_or("Content-Type", "");
      if (!iequals(trim(split(type, ';').front()), "text/event-stream")) {
        throw InvalidResponse("the answer is not a stream of events",
                              with_call({}, service_, stream));
      }
      // A service that is stopping may end a stream before its first byte.
      if (!moved && empty++ >= options_.retry.retries) {
        throw Unavailable("the stream ends without a byte", with_call({}, service_, stream));
      }
    } catch (const Unavailable&) {
      if (!moved) throw;
    }
    if (moved) empty = 0;
    const Clock& clock = *options_.environment.clock;
    const double share = random_of(options_.environment);
    const auto wait = std::chrono::duration_cast<std::chrono::nanoseconds>(share * pause());
    clock.sleep_until(std::min(context.deadline, clock.steady_now() + wait), context.stop);
  }
}

bool ServiceCaller::settle(const std::string& target, const CallContext& context) const {
  return !options_.spool || options_.spool->settle(base_url_, target, context);
}

HealthStatus ServiceCaller::health_check(std::string_view component) const {
  const Clock& clock = *options_.environment.clock;
  const SteadyTime begin = clock.steady_now();
  HealthStatus health;
  try {
    HttpRequest request = bare_request("/health");
    request.timeouts.total = options_.health_timeout;
    request.timeouts.connect = std::min(request.timeouts.connect, options_.health_timeout);
    request.response_bytes_max = limits::kMiB;
    const HttpResponse response = http_->send(request, {});
    health.detail = health_words(response, component);
    health.healthy = health.detail == kHealthy;
  } catch (const RunnerError& error) {
    health.detail = printable(masker_.mask(error.summary()));
  } catch (const std::exception& error) {
    health.detail = printable(error.what());
  }
  health.breaker = http_->hosts().of(base_url_)->breaker.state(clock.steady_now());
  health.latency = std::chrono::duration_cast<milliseconds>(clock.steady_now() - begin);
  return health;
}

HttpRequest ServiceCaller::bare_request(std::string_view path) const {
  HttpRequest request;
  request.url = base_url_ + std::string(path);
  request.headers.set("Accept", "application/json");
  if (!options_.token.empty()) {
    request.headers.set("Authorization", "Bearer " + std::string(options_.token.reveal()));
  }
  return request;
}

HttpRequest ServiceCaller::build(const ServiceCall& call, const CallContext& context) const {
  HttpRequest request = bare_request(call.path);
  request.method = call.method;
  if (!call.body.is_null()) {
    request.body = call.body.dump();
    request.headers.set("Content-Type", "application/json");
  } else {
    request.body = call.raw_body;
  }
  request.body_source = call.body_source;
  request.on_body = call.on_body;
  request.on_head = call.on_head;
  request.on_restart = call.on_restart;
  request.response_bytes_max = call.response_bytes_max;
  request.redirects_max = call.redirects_max;
  if (is_mutating(call.method)) {
    // Made once for the call, so that all its attempts carry the same one.
    request.headers.set("Idempotency-Key",
                        call.idempotency_key.empty() ? uuid7() : call.idempotency_key);
  }
  for (const auto& [name, value] : call.headers) request.headers.set(name, value);

  const milliseconds own_time = context.attempt_timeout.value_or(timeout_);
  const milliseconds time = own_time + call.extra_time;
  request.timeouts.connect = std::min(request.timeouts.connect, own_time);
  if (call.body_source || call.on_body) {
    // A long transfer that moves is healthy; only a standstill ends it.
    request.timeouts.total = milliseconds{0};
    request.timeouts.first_byte = request.timeouts.idle = time;
  } else {
    request.timeouts.total = time;
  }
  return request;
}

RetryOutcome ServiceCaller::send(const ServiceCall& call, HttpRequest request,
                                 const CallContext& context) const {
  CallRecord record(service_, call, options_, context);
  const std::string traceparent = record.traceparent();
  if (!traceparent.empty()) request.headers.set("traceparent", traceparent);
  const auto fill = [&](const RunnerError& error) {
    record.failed(error.info());
    return with_call(error.info(), service_, call);
  };
  try {
    RetryOutcome outcome =
        send_with_retries(*http_, request, options_.retry, context, options_.environment);
    record.report.status = outcome.response.status;
    record.report.attempts = outcome.attempts;
    record.report.end = outcome.end;
    record.report.bytes = outcome.response.body.size();
    return outcome;
  } catch (const TimeoutError& error) {
    throw TimeoutError(error.summary(), fill(error));
  } catch (const Unavailable& error) {
    throw Unavailable(error.summary(), fill(error));
  } catch (const InvalidResponse& error) {
    throw InvalidResponse(error.summary(), fill(error));
  } catch (...) {  // of a body's source or receiver
    record.report.end = CallEnd::kPermanent;
    throw;
  }
}

/// The one table from HTTP statuses to errors.
void ServiceCaller::throw_for(const ServiceCall& call, const RetryOutcome& outcome) const {
  const HttpResponse& response = outcome.response;
  ErrorInfo info = with_call({}, service_, call);
  info.status = response.status;
  info.attempts = outcome.attempts;
  info.end = outcome.end == CallEnd::kNone ? CallEnd::kPermanent : outcome.end;
  info.maybe_accepted = outcome.maybe_accepted;
  info.retry_at = outcome.retry_at;
  info.request_id = request_id_of(response);
  info.detail = own_words(response);
  switch (response.status) {
    case 400:
    case 413:
    case 422:
      info.fields = fields_of(response, masker_);
      throw TaskContextValidationError(service_ + " refused the input", std::move(info));
    case 401:
    case 403:
      throw Unauthorized(service_ + " does not allow this", std::move(info));
    case 404:
      throw NotFound(service_ + " does not know it", std::move(info));
    case 409:
    case 412:
      throw Conflict(service_ + " reports a conflict", std::move(info));
    case 429:
      throw RateLimited(service_ + " limits the rate of calls", std::move(info));
    case 408:
    case 425:
      throw Unavailable(service_ + " could not take the call", std::move(info));
    default:
      break;
  }
  if (response.status / 100 == 3) {
    info.detail = safe_words(location_of(response), masker_);
    throw ServiceError(service_ + " redirects to where this client does not follow",
                       std::move(info));
  }
  if (response.status >= 500) throw Unavailable(service_ + " failed", std::move(info));
  throw ServiceError(service_ + " answered unexpectedly", std::move(info));
}

/// What /health says of the component: kHealthy, or why not.
std::string ServiceCaller::health_words(const HttpResponse& response,
                                        std::string_view component) const {
  const Json components = Json::try_parse(response.body).value_or(Json())["components"];
  if (!components.is_object()) {
    if (response.status / 100 == 2) return kHealthy;
    return "status " + std::to_string(response.status) + ": " + own_words(response);
  }
  if (const Json* word = components.find(component))
    return safe_words(word->string_or(word->dump()), masker_);
  std::vector<std::string> served;
  for (const auto& [name, word] : components.members()) served.push_back(name);
  return safe_words("no " + std::string(component) + " at this address, which serves " +
                        (served.empty() ? "nothing" : join(served, ", ")),
                    masker_);
}

/// What the service says in its answer: one line, bounded, masked.
std::string ServiceCaller::own_words(const HttpResponse& response) const {
  const auto problem = problem_of(response);
  const std::string words = problem ? words_of(*problem) : std::string();
  return safe_words(words.empty() ? std::string_view(response.body) : words, masker_);
}

}  // namespace necrocode::net
