// ExchangeService: one exchange through the metering proxy, from a request whose run is known to
// its last byte: held back, capped, passed on, counted, classed.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "necrocode/llm/metering_proxy.hpp"
#include "necrocode/llm/passage.hpp"
#include "necrocode/llm/run_meter.hpp"
#include "necrocode/llm/shared_pace.hpp"
#include "necrocode/llm/sqlite_spend_ledger.hpp"

namespace necrocode::llm {

/// Thread-safe.
class ExchangeService {
 public:
  /// Throws StorageError.
  explicit ExchangeService(const MeteringProxyOptions& options);

  struct Question {
    std::string provider;
    const Upstream* upstream = nullptr;
    std::string path;          ///< as the program named it
    net::HttpRequest request;  ///< to the service
    std::shared_ptr<RunMeter> run;
  };
  /// Answers a call of a model.
  void exchange(Passage& passage, const Question& question);
  /// Answers what costs nothing.
  void pass_on(Passage& passage, const Question& question);

  const std::shared_ptr<const Masker>& masker() const { return masker_; }

 private:
  class Call;
  net::HttpRequest timed(net::HttpRequest request) const;
  std::string safe(std::string_view text) const;
  bool refuses_stream_options(const std::string& service);
  void learn_refusal(const std::string& service);

  const std::shared_ptr<const PriceTable> prices_;
  const RateLimits rates_;
  const std::chrono::milliseconds first_byte_timeout_;
  const std::chrono::milliseconds idle_timeout_;
  const std::shared_ptr<const Masker> masker_;
  const std::shared_ptr<net::HttpClient> http_;
  const std::shared_ptr<RateGovernor> governor_;
  const std::shared_ptr<SharedState> state_;
  SqliteSpendLedger ledger_;
  SharedPace pace_;
  std::mutex mutex_;
  std::set<std::string> no_stream_options_;  // services and models; guarded by mutex_
};

}  // namespace necrocode::llm
