// Outbox: calls kept on disk while their service is out of reach, and the thread that delivers them
// when it is back. It repeats what it was given and judges nothing: the service's answer decides.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>

#include "necrocode/net/call_spool.hpp"
#include "necrocode/net/service_caller.hpp"

namespace necrocode::outbox {

struct OutboxStatus {
  std::size_t kept = 0;       ///< calls that wait
  std::size_t bytes = 0;      ///< of them
  std::size_t set_aside = 0;  ///< refused for good, since this process began
  std::optional<SystemTime> oldest;
};

struct OutboxOptions {
  std::size_t calls_max = limits::kOutboxCalls;
  std::size_t bytes_max = limits::kOutboxBytes;
  /// After a delivery that failed: doubled each time, up to pause_max; each pause is between half
  /// and all of that, by chance.
  std::chrono::milliseconds pause_min{500};
  std::chrono::milliseconds pause_max{10'000};
};

/// Thread-safe.
///
/// Kept calls outlive the process: they stand in a file of the folder, which the next Outbox on
/// that folder takes over. Calls about one target go out in the order in which they were kept; one
/// that gets no answer, or is asked to come later, holds back its target and is tried again, for
/// ever. A call that the service refuses (4xx but 401, 403, 408, 425, 429) goes to
/// `set-aside.jsonl` in the folder, with the refusal, and into the log; its successors go on.
class Outbox final : public net::CallSpool {
 public:
  /// Takes over what ended processes left in `folder`. Throws StorageError.
  explicit Outbox(std::filesystem::path folder, OutboxOptions options = {},
                  const Clock& clock = real_clock());
  /// What is still kept stays on disk.
  ~Outbox() override;

  /// From now on calls to the service at the caller's base URL are delivered through it. Calls to
  /// another address wait for a process that knows it.
  void deliver_through(std::shared_ptr<const net::ServiceCaller> caller);

  void keep(const std::string& service, const std::string& base_url,
            const net::ServiceCall& call) override;
  bool holds(const std::string& base_url, const std::string& target) const override;
  bool settle(const std::string& base_url, const std::string& target,
              const CallContext& context) override;
  OutboxStatus status() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace necrocode::outbox
