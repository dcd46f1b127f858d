// ClaimQueue: claims that wait for a ready task, in their order of arrival, and the thread that
// serves them and ends due leases. A claim whose client is gone is handed back, never lost. A claim
// told again, by its Idempotency-Key, gets the tasks of the first.
#pragma once

#include <functional>
#include <memory>

#include "necrocode/base/clock.hpp"
#include "necrocode/net/http_server.hpp"
#include "necrocode/registry/task_store.hpp"

namespace necrocode::registry {

/// Thread-safe. `store` and `clock` live longer.
class ClaimQueue {
 public:
  /// Makes the response of a claim. Its `get()` throws when a waiting claim can no longer succeed.
  using Answer = std::function<net::Response(const ClaimOutcome&)>;

  /// An empty outcome is answered when a claim's time passed without a task.
  ClaimQueue(TaskStore& store, const Clock& clock, Answer answer);
  ~ClaimQueue();  ///< stop()

  /// Claims at once, or waits up to `request.wait`; parked either way, as the claim is answered
  /// after its commit. With a key that has an answer gives that; with one that a waiting claim has,
  /// waits for its answer.
  net::Response claim(const ClaimRequest& request,
                      const std::optional<net::IdempotencyKey>& key = std::nullopt);
  void stop();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace necrocode::registry
