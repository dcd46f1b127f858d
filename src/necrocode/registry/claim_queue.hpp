// ClaimQueue: claims that wait for a ready task, in their order of arrival, and the thread that
// serves them and ends due leases. A claim whose client is gone is handed back, never lost.
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
  using Answer = std::function<net::Response(const std::vector<ClaimedTask>&)>;

  /// `answer` makes the response of a claim; an empty one when its time passed without a task.
  ClaimQueue(TaskStore& store, const Clock& clock, Answer answer);
  ~ClaimQueue();  ///< stop()

  /// Claims at once, or parks the answer for up to `request.wait`.
  net::Response claim(const ClaimRequest& request);
  /// A lease of that length has begun: the thread wakes when it may end.
  void lease_started(std::chrono::milliseconds duration);
  void stop();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace necrocode::registry
