// SqliteTaskStore: the embedded TaskStore. One writer thread with group commit, readers on
// snapshots, leases timed by this process's monotonic clock; so one process a database, which a
// lock file ensures.
#pragma once

#include <filesystem>
#include <memory>

#include "necrocode/base/clock.hpp"
#include "necrocode/registry/task_store.hpp"

namespace necrocode::registry {

class SqliteTaskStore : public TaskStore {
 public:
  /// Opens or creates `path`, brings its schema up to date, and renews each live lease once for its
  /// whole duration. Throws StorageError, also when its schema is newer, and ResourceConflictError
  /// when another process has it open.
  explicit SqliteTaskStore(const std::filesystem::path& path, const Clock& clock = real_clock(),
                           StoreOptions options = {});
  ~SqliteTaskStore() override;

  void transact(const std::function<void(TaskChanges&)>& work) override;
  void transact_later(std::function<void(TaskChanges&)> work,
                      std::function<void(std::exception_ptr)> done) override;
  /// In memory: a renewed lease is not written, since a restart renews it anyway.
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
  void check() override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace necrocode::registry
