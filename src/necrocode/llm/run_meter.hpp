// RunMeter: what one run's exchanges through the metering proxy came to, those under way included,
// and their recording.
#pragma once

#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "necrocode/base/file.hpp"
#include "necrocode/llm/metering_proxy.hpp"
#include "necrocode/llm/passage.hpp"
#include "necrocode/llm/prompt_bound.hpp"

namespace necrocode::llm {

/// Thread-safe.
class RunMeter {
 public:
  /// Throws StorageError when the recording cannot be made.
  RunMeter(MeteredRunOptions options, std::shared_ptr<const Masker> masker);

  const MeteredRunOptions& options() const { return options_; }
  const std::string& key() const { return key_; }
  PromptBound& prompts() { return prompts_; }
  bool records() const { return recording_.get() >= 0; }

  /// An exchange under way, as long as the object lives. `begun`: nothing for one that is not
  /// counted.
  class UnderWay {
   public:
    UnderWay(RunMeter& meter, Passage& passage, std::optional<ExchangeReport> begun);
    ~UnderWay();
    UnderWay(const UnderWay&) = delete;
    UnderWay& operator=(const UnderWay&) = delete;
    /// A byte came; or, from now on, it is held back by us, or no longer.
    void heard();
    void hold(bool held);
    /// For how long no byte has come.
    std::chrono::nanoseconds silence() const;

   private:
    friend class RunMeter;
    RunMeter& meter_;
    Passage& passage_;
    std::optional<ExchangeReport> begun_;  // until it is counted
    SteadyTime last_byte_;
    bool held_ = false;
    std::list<UnderWay*>::iterator place_;
  };

  /// It goes out to the service.
  void forwarded();
  /// It has come to its end; once for each.
  void count(UnderWay& exchange, const ExchangeReport& report);
  /// What was said in it, masked; `left_out` says why it is not kept.
  void record(const ExchangeReport& report, std::string_view request, std::string_view answer,
              std::string_view left_out);

  Metered so_far(std::chrono::nanoseconds silence) const;
  /// No exchange begins any more; those under way are broken off, and waited for.
  void end();
  bool ended() const;

 private:
  const MeteredRunOptions options_;
  const std::shared_ptr<const Masker> masker_;
  const std::string key_;
  PromptBound prompts_;

  mutable std::mutex mutex_;
  std::condition_variable gone_;
  bool ended_ = false;
  Metered sums_;
  std::list<UnderWay*> under_way_;  // in the order in which they began

  std::mutex recording_mutex_;
  FileDescriptor recording_;
  std::uint64_t recorded_bytes_ = 0;
};

}  // namespace necrocode::llm
