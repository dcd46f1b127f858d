#include "necrocode/llm/metered_exchange.hpp"

#include <algorithm>
#include <cmath>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/completion.hpp"
#include "necrocode/llm/replay_delivery.hpp"
#include "necrocode/net/retry.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::llm {
namespace {

using std::chrono::nanoseconds;

constexpr std::chrono::minutes kHoldMax{5};  // programs do not wait longer for an answer
// A program that goes after so long without a byte has not changed its mind: there was silence.
constexpr std::chrono::seconds kSilence{10};
constexpr std::int64_t kUsualAnswerTokens = 4'000;  // of a request without a limit, for rates
constexpr std::size_t kServicesRemembered = 1'000;

int seconds_up(nanoseconds time) {
  return static_cast<int>(std::max(1.0, std::ceil(std::chrono::duration<double>(time).count())));
}

// Clients of the vendors' own listen to it before they look at the status.
net::Response for_good(net::Response response) {
  response.headers.set("x-should-retry", "false");
  return response;
}

net::Response later(net::Response response, nanoseconds wait) {
  response.headers.set("Retry-After", std::to_string(seconds_up(wait)));
  return response;
}

std::shared_ptr<net::HttpClient> own_client() {
  net::HttpClientOptions options;
  options.connections_per_host = limits::kProxyExchanges;
  return net::make_curl_http_client(std::move(options));
}

// The model that an address names (Azure); empty: none.
std::string deployment_of(std::string_view url) {
  constexpr std::string_view kBefore = "/deployments/";
  url = url.substr(0, url.find('?'));
  const std::size_t at = url.find(kBefore);
  if (at == std::string_view::npos) return {};
  url.remove_prefix(at + kBefore.size());
  return std::string(url.substr(0, url.find('/')));
}

bool is_broken(int status, bool has_hint) {
  return status == 500 || status == 502 || status == 504 || (status == 503 && !has_hint);
}

}  // namespace

ExchangeService::ExchangeService(const MeteringProxyOptions& options)
    : prices_(options.prices),
      rates_(options.rates),
      first_byte_timeout_(options.first_byte_timeout),
      idle_timeout_(options.idle_timeout),
      masker_(options.masker),
      http_(options.http ? options.http : own_client()),
      governor_(options.governor ? options.governor : std::make_shared<RateGovernor>()),
      state_(std::make_shared<SharedState>(options.shared_state)),
      ledger_(state_),
      pace_(state_) {}

net::HttpRequest ExchangeService::timed(net::HttpRequest request) const {
  request.timeouts.first_byte = first_byte_timeout_;
  request.timeouts.idle = idle_timeout_;
  return request;
}

std::string ExchangeService::safe(std::string_view text) const {
  return shorten(printable(masker_->mask_head(text, limits::kModelHeadBytes)),
                 limits::kModelMessageBytes);
}

bool ExchangeService::refuses_stream_options(const std::string& service) {
  const std::lock_guard lock(mutex_);
  return no_stream_options_.contains(service);
}

void ExchangeService::learn_refusal(const std::string& service) {
  const std::lock_guard lock(mutex_);
  if (no_stream_options_.size() < kServicesRemembered) no_stream_options_.insert(service);
}

void ExchangeService::pass_on(Passage& passage, const Question& question) {
  const RunMeter::UnderWay under_way(*question.run, passage, std::nullopt);
  Passed passed =
      passage.send(*http_, timed(question.request), [](std::string_view piece) { return piece; });
  const std::string why = passed.failure ? safe(passed.failure->summary()) : "";
  passage.end(std::move(passed), [&] {
    return refuse(passage.api, {502, "the model service could not be asked: " + why});
  });
}

// ---- one call of a model ----

/// On the exchange's thread, from its request to its end.
class ExchangeService::Call {
 public:
  Call(ExchangeService& service, Passage& passage, const Question& question)
      : service_(service),
        passage_(passage),
        question_(question),
        run_(*question.run),
        deployment_(deployment_of(question.request.url)),
        asked_(read_metered_request(passage.api, question.request.body, deployment_)),
        origin_(question.upstream->endpoint.origin()),
        rate_key_(rate_key(origin_, question.upstream->api_key.reveal(), asked_.model)),
        prompt_key_(question.provider + "/" + deployment_ + "/" + asked_.model),
        began_(real_clock().steady_now()),
        report_(begun(question, asked_)),
        under_way_(run_, passage, report_) {}

  void run();

 private:
  static ExchangeReport begun(const Question& question, const MeteredRequest& asked) {
    ExchangeReport report;
    report.provider = question.provider;
    report.model = asked.model;
    report.path = question.path;
    report.streamed = asked.stream;
    return report;
  }

  bool has_cap() const {
    const SpendCaps& caps = run_.options().caps;
    return caps.run_usd || caps.owner_usd || caps.daily_usd;
  }
  std::int64_t prompt_estimate() const {
    return run_.prompts().estimate(prompt_key_, question_.request.body);
  }
  /// Names of the model: which of them counts is the service's to say.
  std::vector<std::string_view> names() const {
    std::vector<std::string_view> names{asked_.model};
    if (!deployment_.empty() && deployment_ != asked_.model) names.push_back(deployment_);
    return names;
  }
  std::optional<double> cost() const;
  bool is_countable();
  bool take_turn();
  bool reserve();
  Passed forward();
  Passed send(net::HttpRequest request, bool take_usage_out);
  void heed(const net::HttpResponse& head);
  void tell(SharedPace::News news);
  void conclude_answer(bool whole, const std::optional<net::TransportError>& failure);
  void conclude_refusal(const net::HttpResponse& answer);
  net::Response conclude_nothing(const net::TransportError& failure);
  Verdict left_alone() const;
  void conclude(Verdict verdict, int status);
  void refuse_call(Verdict verdict, net::Response response);
  void refuse_later(const std::string& why, nanoseconds wait);

  ExchangeService& service_;
  Passage& passage_;
  const Question& question_;
  RunMeter& run_;
  const std::string deployment_;
  const MeteredRequest asked_;
  const std::string origin_;
  const std::string rate_key_;
  const std::string prompt_key_;
  const SteadyTime began_;
  ExchangeReport report_;
  RunMeter::UnderWay under_way_;

  RateGovernor::Permit permit_;
  std::int64_t rate_tokens_ = 0;
  SharedPace::Turn turn_;
  bool told_ = false;  // how the service took it
  std::optional<std::int64_t> reservation_;
  double reserved_usd_ = 0;
  bool may_have_cost_all_ = false;  // nobody says what it did cost
  std::optional<AnswerMeter> meter_;
  UsageChunkFilter filter_;
  int answered_ = 0;  // status of a 2xx
  bool concluded_ = false;
  std::string kept_;  // of the answer, for the recording
  bool kept_all_ = true;
};

void ExchangeService::exchange(Passage& passage, const Question& question) {
  Call(*this, passage, question).run();
}

void ExchangeService::Call::run() {
  try {
    if (!is_countable() || !take_turn() || !reserve()) return;
  } catch (const StorageError& error) {
    log::error("what the proxy shares with others cannot be read or written",
               {{"error", error.what()}});
    return refuse_call({ExchangeClass::kUnavailable, error.summary()},
                       refuse(passage_.api, {503, "the proxy's ledger is out of order"}));
  }
  Passed passed = forward();
  net::Response instead;
  if (passed.begun) {
    if (!concluded_) conclude_answer(!passed.failure, passed.failure);
  } else if (passed.failure) {
    instead = conclude_nothing(*passed.failure);
  } else {
    conclude_refusal(passed.answer);
  }
  if (run_.records() && !passed.begun) kept_ = passed.answer.body;
  passage_.end(std::move(passed), [&] { return std::move(instead); });
  if (run_.records()) {
    run_.record(report_, question_.request.body, kept_, kept_all_ ? "" : "the answer is too large");
  }
}

// What has no price, or cannot be read, could pass any cap.
bool ExchangeService::Call::is_countable() {
  if (!has_cap()) return true;
  if (!asked_.defect.empty()) {
    refuse_call({ExchangeClass::kRequest, asked_.defect},
                refuse(passage_.api, {400, asked_.defect + "; under a spend cap it must be read",
                                      "unreadable_request"}));
    return false;
  }
  if (!asked_.unpriced.empty()) {
    const std::string why = "there is a spend cap, and " + asked_.unpriced;
    refuse_call({ExchangeClass::kCap, why}, refuse(passage_.api, {400, why, "unpriced_request"}));
    return false;
  }
  for (const std::string_view name : names()) {
    if (service_.prices_->find(name) != nullptr) continue;
    const std::string why = "there is a spend cap, and no price for the model \"" +
                            printable(name) +
                            "\": name it under prices: in the configuration, or with --prices";
    refuse_call({ExchangeClass::kCap, why}, refuse(passage_.api, {402, why, "unknown_price"}));
    return false;
  }
  return true;
}

// Until the service, the configured rates and the other processes let it go.
bool ExchangeService::Call::take_turn() {
  const RateLimits& rates = service_.rates_;
  CallContext context;
  context.stop = passage_.stop_token();
  context.deadline = run_.options().deadline;
  context = context.within(kHoldMax);
  rate_tokens_ = prompt_estimate() + asked_.token_limit.value_or(kUsualAnswerTokens);
  under_way_.hold(true);
  try {
    permit_ = service_.governor_->acquire(rate_key_, rates, rate_tokens_, context);
    for (;;) {
      turn_ = service_.pace_.ask(rate_key_, origin_, rates, rate_tokens_);
      if (turn_.wait.count() == 0) break;
      if (turn_.broken) {
        permit_.settle(0);
        const std::string why = "the model service has been failing; it is asked again later";
        refuse_call({ExchangeClass::kUnavailable, why},
                    later(refuse(passage_.api, {503, why, "breaker_open"}), turn_.wait));
        return false;
      }
      if (context.remaining() <= turn_.wait) {
        permit_.settle(0);
        refuse_later("the model service wants to be left alone", turn_.wait);
        return false;
      }
      if (!real_clock().sleep_for(turn_.wait, context.stop)) break;
    }
  } catch (const RateLimited& limited) {
    const auto retry_at = limited.info().retry_at;
    const nanoseconds wait =
        retry_at ? *retry_at - real_clock().system_now() : nanoseconds(std::chrono::seconds(1));
    refuse_later(limited.summary(), wait);
    return false;
  } catch (const TimeoutError&) {
    // Its deadline has passed, or the program is gone.
  }
  under_way_.hold(false);
  if (context.cancelled()) {
    tell(SharedPace::News::kNone);
    refuse_call({ExchangeClass::kGone, "the program did not wait for its turn"},
                refuse(passage_.api, {503, "the run has ended"}));
    return false;
  }
  if (!context.expired()) return true;
  refuse_later("the run's deadline has passed", std::chrono::seconds(1));
  return false;
}

bool ExchangeService::Call::reserve() {
  const PriceTable& prices = *service_.prices_;
  const std::int64_t prompt_tokens =
      run_.prompts().tokens_max(prompt_key_, question_.request.body, asked_.refers_outside);
  std::int64_t answer_tokens = -1;
  for (const std::string_view name : names()) {
    const Price* price = prices.find(name);
    if (price == nullptr) continue;
    const std::int64_t most =
        asked_.token_limit.value_or(price->max_output_tokens) * asked_.choices;
    answer_tokens = std::max(answer_tokens, most);
    reserved_usd_ = std::max(
        reserved_usd_, *prices.worst_case(name, prompt_tokens, most, asked_.caches_for_an_hour));
  }
  if (answer_tokens < 0) return true;  // no price, and no cap
  try {
    const MeteredRunOptions& run = run_.options();
    reservation_ = service_.ledger_.reserve(run.account, run.caps, reserved_usd_);
    return true;
  } catch (const SpendCapReached& reached) {
    tell(SharedPace::News::kNone);
    permit_.settle(0);
    const std::string why = reached.summary() + ": " + reached.info().detail + " (at most " +
                            std::to_string(prompt_tokens) + " tokens of prompt and " +
                            std::to_string(answer_tokens) + " of answer)";
    refuse_call({ExchangeClass::kCap, why}, refuse(passage_.api, {402, why, "spend_cap_reached"}));
    return false;
  }
}

// ---- the service is asked ----

Passed ExchangeService::Call::forward() {
  run_.forwarded();
  net::HttpRequest request = service_.timed(question_.request);
  const std::string service = origin_ + " " + asked_.model;
  const bool is_readable = asked_.defect.empty();
  if (!asked_.stream || asked_.asks_usage || !is_readable ||
      service_.refuses_stream_options(service)) {
    return send(std::move(request), false);
  }
  request.body = with_usage_asked(request.body);
  Passed passed = send(std::move(request), true);
  const bool refused = !passed.failure &&
                       (passed.answer.status == 400 || passed.answer.status == 422) &&
                       passed.answer.body.find("stream_options") != std::string::npos;
  if (!refused) return passed;
  service_.learn_refusal(service);
  return send(service_.timed(question_.request), false);
}

Passed ExchangeService::Call::send(net::HttpRequest request, bool take_usage_out) {
  meter_.emplace(passage_.api);
  Passed passed = passage_.send(
      *service_.http_, std::move(request),
      [&](std::string_view piece) {
        under_way_.heard();
        meter_->take(piece);
        if (run_.records()) {
          kept_all_ = kept_all_ && kept_.size() + piece.size() <= limits::kModelAnswerBytes;
          if (kept_all_) kept_.append(piece);
        }
        // Before the program sees its end, and asks again.
        if (meter_->ended() && !concluded_) conclude_answer(true, std::nullopt);
        return take_usage_out ? filter_.take(piece) : piece;
      },
      [&](const net::HttpResponse& head) {
        under_way_.heard();
        answered_ = head.status;
        meter_->begin(head);
        heed(head);
      });
  if (passed.begun && take_usage_out) {
    if (const auto rest = filter_.finish(); !rest.empty()) passage_.push(rest);
  }
  if (!passed.begun && !passed.failure) heed(passed.answer);
  if (passed.failure) {
    const bool host_failed = passed.failure->failure() == net::TransportFailure::kConnect ||
                             passed.failure->failure() == net::TransportFailure::kTimeout ||
                             passed.failure->failure() == net::TransportFailure::kReset;
    tell(host_failed ? SharedPace::News::kBroken : SharedPace::News::kNone);
  }
  return passed;
}

// What an answer says of the calls to come, to this process and to the others.
void ExchangeService::Call::heed(const net::HttpResponse& head) {
  const int status = head.status;
  service_.governor_->learn(rate_key_, status, head.headers);
  const auto hint = net::read_retry_hint(head.headers, real_clock().system_now()).delay;
  try {
    if (hint && (status == 429 || status == 503 || status == 529)) {
      service_.pace_.hold(rate_key_, *hint);
    }
  } catch (const StorageError& error) {
    log::warn("other processes are not told of a service's wish", {{"error", error.what()}});
  }
  tell(is_broken(status, hint.has_value()) ? SharedPace::News::kBroken
                                           : SharedPace::News::kAnswered);
}

void ExchangeService::Call::tell(SharedPace::News news) {
  // That it broke off is told also of a service that has answered.
  if (told_ && news != SharedPace::News::kBroken) return;
  told_ = true;
  try {
    service_.pace_.tell(origin_, turn_, news);
  } catch (const StorageError& error) {
    log::warn("other processes are not told of a service's health", {{"error", error.what()}});
  }
}

// ---- how it ended ----

// By the price of the model that answered, else by the dearest that was asked for.
std::optional<double> ExchangeService::Call::cost() const {
  const PriceTable& prices = *service_.prices_;
  const std::int64_t hour_cache_tokens = meter_->hour_cache_tokens();
  std::optional<double> cost = prices.cost(meter_->model(), report_.usage, hour_cache_tokens);
  if (cost) return cost;
  for (const std::string_view name : names()) {
    cost = std::max(cost, prices.cost(name, report_.usage, hour_cache_tokens));
  }
  return cost;
}

void ExchangeService::Call::conclude_answer(bool whole,
                                            const std::optional<net::TransportError>& failure) {
  Verdict verdict = meter_->verdict(whole);
  if (verdict.how == ExchangeClass::kUnavailable && failure) {
    verdict =
        passage_.abandoned()
            ? Verdict{ExchangeClass::kGone, "the program did not wait for the end"}
            : Verdict{ExchangeClass::kUnavailable, "the answer broke off: " + failure->summary()};
  }
  report_.usage = meter_->usage(prompt_estimate());
  if (!report_.usage.estimated && report_.usage.prompt_tokens > 0) {
    run_.prompts().counted(prompt_key_, question_.request.body, report_.usage.prompt_tokens);
  }
  report_.usage.cost_usd = cost();
  // A service that is not listened to may go on, and bill it all.
  const bool is_answer = whole && verdict.how == ExchangeClass::kOk;
  const std::string& answered = meter_->model();
  may_have_cost_all_ = (report_.usage.estimated && !is_answer && !meter_->bills_nothing_more()) ||
                       (!answered.empty() && service_.prices_->find(answered) == nullptr);
  if (report_.model.empty()) report_.model = service_.safe(meter_->model());
  conclude(std::move(verdict), answered_);
}

void ExchangeService::Call::conclude_refusal(const net::HttpResponse& answer) {
  conclude(judge(answer.status, answer.body), answer.status);
}

// Nothing came. A service that has the request, and was not waited for, may have billed it.
net::Response ExchangeService::Call::conclude_nothing(const net::TransportError& failure) {
  const bool timed_out = failure.failure() == net::TransportFailure::kTimeout;
  const bool abandoned = passage_.abandoned();
  may_have_cost_all_ = (timed_out || abandoned) && failure.delivery() != net::Delivery::kNotSent;
  if (may_have_cost_all_) {
    report_.usage.prompt_tokens = report_.usage.total_tokens = prompt_estimate();
    report_.usage.estimated = true;
    report_.usage.cost_usd = cost();
  }
  if (abandoned) {
    conclude(left_alone(), 0);
    return refuse(passage_.api, {503, "the run has ended"});
  }
  Verdict verdict = judge(failure);
  const std::string why = service_.safe(verdict.detail);
  conclude(std::move(verdict), timed_out ? 504 : 502);
  return refuse(passage_.api, {timed_out ? 504 : 502, "the model service gave no answer: " + why});
}

// The program, or its run, has ended the exchange.
Verdict ExchangeService::Call::left_alone() const {
  if (under_way_.silence() >= kSilence && !run_.ended()) {
    return {ExchangeClass::kUnavailable, "the service was silent until the program gave up"};
  }
  return {ExchangeClass::kGone, "the program did not wait for the answer"};
}

void ExchangeService::Call::conclude(Verdict verdict, int status) {
  concluded_ = true;
  report_.how = verdict.how;
  report_.detail = verdict.how == ExchangeClass::kOk ? "" : service_.safe(verdict.detail);
  report_.status = status;
  report_.duration = real_clock().steady_now() - began_;
  if (reservation_) {
    const double known = report_.usage.cost_usd.value_or(0);
    service_.ledger_.settle(*reservation_,
                            may_have_cost_all_ ? std::max(known, reserved_usd_) : known);
  }
  permit_.settle(report_.usage.total_tokens);
  try {
    service_.pace_.settle(rate_key_, service_.rates_, rate_tokens_, report_.usage.total_tokens);
  } catch (const StorageError& error) {
    log::warn("a call's tokens are not told to other processes", {{"error", error.what()}});
  }
  run_.count(under_way_, report_);
}

// It never goes out.
void ExchangeService::Call::refuse_call(Verdict verdict, net::Response response) {
  const bool final = verdict.how == ExchangeClass::kCap;
  report_.how = verdict.how;
  report_.detail = service_.safe(verdict.detail);
  report_.status = response.status;
  report_.duration = real_clock().steady_now() - began_;
  run_.count(under_way_, report_);
  passage_.answer(final ? for_good(std::move(response)) : std::move(response));
}

void ExchangeService::Call::refuse_later(const std::string& why, nanoseconds wait) {
  refuse_call({ExchangeClass::kRate,
               why + "; to be tried again in " + std::to_string(seconds_up(wait)) + " s"},
              later(refuse(passage_.api, {429, why, "rate_limit_exceeded"}), wait));
}

}  // namespace necrocode::llm
