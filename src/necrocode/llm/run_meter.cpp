#include "necrocode/llm/run_meter.hpp"

#include <fcntl.h>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/llm/masked_text.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::llm {
namespace {

// Looks like the keys that programs expect, and does not look like anybody's.
std::string make_key() {
  constexpr std::size_t kRandomBytes = 16;
  return "sk-necrocode-" + random_hex(kRandomBytes);
}

FileDescriptor open_recording(const std::filesystem::path& path) {
  if (path.empty()) return {};
  FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!file) throw_errno("cannot open", path.string());
  return file;
}

}  // namespace

Json ExchangeReport::to_json() const {
  return Json::object({{"provider", provider},
                       {"model", model},
                       {"path", path},
                       {"class", to_string(how)},
                       {"status", status},
                       {"detail", detail},
                       {"streamed", streamed},
                       {"usage", usage.to_json()},
                       {"duration_seconds", std::chrono::duration<double>(duration).count()}});
}

RunMeter::RunMeter(MeteredRunOptions options, std::shared_ptr<const Masker> masker)
    : options_(std::move(options)),
      masker_(std::move(masker)),
      key_(make_key()),
      recording_(open_recording(options_.recording)) {}

// ---- exchanges under way ----

RunMeter::UnderWay::UnderWay(RunMeter& meter, Passage& passage, std::optional<ExchangeReport> begun)
    : meter_(meter),
      passage_(passage),
      begun_(std::move(begun)),
      last_byte_(real_clock().steady_now()) {
  const std::lock_guard lock(meter_.mutex_);
  place_ = meter_.under_way_.insert(meter_.under_way_.end(), this);
  if (meter_.ended_) passage_.abandon();
}

RunMeter::UnderWay::~UnderWay() {
  const std::lock_guard lock(meter_.mutex_);
  meter_.under_way_.erase(place_);
  meter_.gone_.notify_all();
}

void RunMeter::UnderWay::heard() {
  const SteadyTime now = real_clock().steady_now();
  const std::lock_guard lock(meter_.mutex_);
  last_byte_ = now;
}

void RunMeter::UnderWay::hold(bool held) {
  const SteadyTime now = real_clock().steady_now();
  const std::lock_guard lock(meter_.mutex_);
  held_ = held;
  last_byte_ = now;
}

std::chrono::nanoseconds RunMeter::UnderWay::silence() const {
  const SteadyTime now = real_clock().steady_now();
  const std::lock_guard lock(meter_.mutex_);
  return now - last_byte_;
}

void RunMeter::end() {
  std::unique_lock lock(mutex_);
  ended_ = true;
  for (UnderWay* exchange : under_way_) exchange->passage_.abandon();
  gone_.wait(lock, [this] { return under_way_.empty(); });
}

bool RunMeter::ended() const {
  const std::lock_guard lock(mutex_);
  return ended_;
}

// ---- counting ----

void RunMeter::forwarded() {
  const std::lock_guard lock(mutex_);
  ++sums_.calls;
}

void RunMeter::count(UnderWay& exchange, const ExchangeReport& report) {
  {
    const std::lock_guard lock(mutex_);
    exchange.begun_.reset();
    if (report.how == ExchangeClass::kCap) ++sums_.refused;
    sums_.usage += report.usage;
    sums_.last = report;
    if (report.how == ExchangeClass::kOk) {
      sums_.failure.reset();
    } else if (report.how != ExchangeClass::kGone) {
      sums_.failure = report;
    }
  }
  if (options_.on_exchange) options_.on_exchange(report);
}

Metered RunMeter::so_far(std::chrono::nanoseconds silence) const {
  const SteadyTime now = real_clock().steady_now();
  const std::lock_guard lock(mutex_);
  Metered metered = sums_;
  for (const UnderWay* exchange : under_way_) {
    const auto silent = now - exchange->last_byte_;
    if (!exchange->begun_ || silent < silence) continue;
    ExchangeReport report = *exchange->begun_;
    report.how = exchange->held_ ? ExchangeClass::kRate : ExchangeClass::kUnavailable;
    report.detail = std::string(exchange->held_ ? "held back" : "the service has been silent") +
                    " for " + human_duration(silent);
    metered.last = metered.failure = report;
  }
  return metered;
}

// ---- the recording ----

void RunMeter::record(const ExchangeReport& report, std::string_view request,
                      std::string_view answer, std::string_view left_out) {
  const auto kept = [&](std::string_view body) {
    const auto json = Json::try_parse(body);
    return json ? masked(*json, *masker_) : Json(masker_->mask(body));
  };
  Json line = report.to_json();
  line.set("time", to_rfc3339(real_clock().system_now()));
  std::string reason(left_out);
  if (reason.empty() && holds_secret_in_pieces(answer, *masker_)) {
    reason = "a secret is spread over it";
  }
  Json whole = line;
  whole.set("request", kept(request));
  if (reason.empty()) whole.set("answer", kept(answer));
  if (!reason.empty()) whole.set("left_out", reason);
  // A last look: better no texts than a secret among them.
  if (masker_->contains_secret(whole.dump())) {
    whole = line.set("left_out", "a secret is spread over it");
  }
  const std::string text = whole.dump() + "\n";
  const std::lock_guard lock(recording_mutex_);
  if (recorded_bytes_ + text.size() > limits::kRecordedExchangesBytes) {
    if (recorded_bytes_ <= limits::kRecordedExchangesBytes) {
      log::warn("the recording of a run's exchanges is full",
                {{"file", options_.recording.string()}});
    }
    recorded_bytes_ = limits::kRecordedExchangesBytes + 1;
    return;
  }
  recorded_bytes_ += text.size();
  try {
    write_all(recording_.get(), text);
  } catch (const StorageError& error) {
    log::warn("an exchange could not be recorded", {{"error", error.what()}});
  }
}

}  // namespace necrocode::llm
