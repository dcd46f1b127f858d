// ModelTaskStore: what a TaskStore has to do, in the plainest way. The oracle that other stores are
// compared with, so it shares nothing with them but the contract's pure parts.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "conformance/model_state.hpp"
#include "necrocode/base/clock.hpp"

namespace necrocode::registry {

/// In memory. One mutex; each change works on the state itself and puts a copy back if it throws.
class ModelTaskStore final : public TaskStore {
 public:
  explicit ModelTaskStore(const Clock& clock = real_clock(), StoreOptions options = {});
  ~ModelTaskStore() override;

  /// What a restart does to a store that keeps its state: leases are renewed once, and what the
  /// monotonic clock timed is timed anew by the system clock.
  void restart();
  /// When do_due() has something to do next; for the tests of a store's promises.
  std::optional<SteadyTime> next_due();

  void transact(const std::function<void(TaskChanges&)>& work) override;
  void transact_later(std::function<void(TaskChanges&)> work,
                      std::function<void(std::exception_ptr)> done) override;
  std::vector<HeartbeatResult> heartbeat(const std::vector<LeaseRef>& leases) override;
  std::optional<std::chrono::nanoseconds> do_due() override;
  bool purge(const Retention& retention) override;
  Task task(const std::string& task_id) override;
  TaskPage tasks(const TaskQuery& query) override;
  std::vector<AttemptRecord> attempts(const std::string& task_id) override;
  Explanation explain(const std::string& task_id) override;
  std::vector<ParkedProvider> parked_providers() override;
  Taskset taskset(const std::string& spec, TasksetPart part) override;
  TasksetPage tasksets(const std::string& cursor, int limit) override;
  EventPage events(const EventQuery& query) override;
  std::int64_t newest_event() override;
  TaskGraph graph(const std::string& spec) override;
  std::map<TaskState, std::int64_t> counts() override;
  void on_commit(std::function<void(const CommitNews&)> listener) override;
  void check() override {}

 private:
  void change(const std::function<void(class ModelChanges&)>& work);
  Taskset told(const ModelTaskset& taskset) const;
  void serve(const std::stop_token& stop);

  struct Later {
    std::function<void(TaskChanges&)> work;
    std::function<void(std::exception_ptr)> done;
  };

  const Clock& clock_;
  const StoreOptions options_;
  std::mutex mutex_;
  ModelState state_;
  std::vector<std::function<void(const CommitNews&)>> listeners_;
  std::mutex later_mutex_;
  std::condition_variable_any later_;
  std::deque<Later> queue_;
  std::jthread server_;  // last: ends before what it uses
};

}  // namespace necrocode::registry
