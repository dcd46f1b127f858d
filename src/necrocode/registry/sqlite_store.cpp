#include "necrocode/registry/sqlite_store.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "necrocode/base/file.hpp"
#include "necrocode/registry/group_writer.hpp"
#include "necrocode/registry/sqlite_changes.hpp"
#include "necrocode/registry/sqlite_queries.hpp"

namespace necrocode::registry {
namespace {

/// Two processes would each time the leases of the other's claims wrongly.
FileDescriptor lock_database(const std::filesystem::path& path) {
  const std::string name = path.string() + ".lock";
  FileDescriptor file(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!file) throw_errno("cannot open", name);
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    throw ResourceConflictError("another process serves the folder " + path.parent_path().string() +
                                ": it has its task registry open");
  }
  return file;
}

/// When the leases end, by the monotonic clock. The database says who holds one, this says until
/// when.
class LeaseTimes {
 public:
  struct Lease {
    std::string task_id;
    std::chrono::milliseconds duration{0};
    SteadyTime ends;
    bool cancel_requested = false;
  };

  void apply(const Effects& effects, SteadyTime now) {
    const std::lock_guard lock(mutex_);
    for (const Effects::Lease& lease : effects.leases_started) {
      leases_[lease.token] = {lease.task_id, lease.duration, now + lease.duration, false};
    }
    for (const std::string& token : effects.cancel_requested) {
      if (const auto found = leases_.find(token); found != leases_.end()) {
        found->second.cancel_requested = true;
      }
    }
    for (const std::string& token : effects.leases_ended) leases_.erase(token);
  }

  void add(const std::string& token, Lease lease) {
    const std::lock_guard lock(mutex_);
    leases_[token] = std::move(lease);
  }

  /// The lease after its renewal; nothing when it has ended. `task_id` may be bare.
  std::optional<Lease> renew(const std::string& token, const std::string& task_id, SteadyTime now) {
    const std::lock_guard lock(mutex_);
    const auto found = leases_.find(token);
    if (found == leases_.end() || found->second.ends <= now) return std::nullopt;
    Lease& lease = found->second;
    if (lease.task_id != task_id && !lease.task_id.ends_with(":" + task_id)) return std::nullopt;
    lease.ends = now + lease.duration;
    return lease;
  }

  std::vector<LeaseRef> due(SteadyTime now) const {
    const std::lock_guard lock(mutex_);
    std::vector<LeaseRef> ended;
    for (const auto& [token, lease] : leases_) {
      if (lease.ends <= now) ended.push_back({lease.task_id, LeaseToken{token}});
    }
    return ended;
  }

  std::optional<SteadyTime> next() const {
    const std::lock_guard lock(mutex_);
    std::optional<SteadyTime> earliest;
    for (const auto& [token, lease] : leases_) {
      if (!earliest || lease.ends < *earliest) earliest = lease.ends;
    }
    return earliest;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Lease> leases_;
};

/// Connections for reading, made when needed, one caller at a time each.
class Readers {
 public:
  explicit Readers(std::filesystem::path path) : path_(std::move(path)) {}

  /// Runs `read` on one snapshot.
  template <class Read>
  auto run(Read&& read) {
    Borrowed borrowed(*this);
    borrowed.database->execute("BEGIN");
    try {
      auto result = read(*borrowed.database);
      borrowed.database->execute("COMMIT");
      return result;
    } catch (...) {
      borrowed.database->execute("ROLLBACK");
      throw;
    }
  }

 private:
  struct Borrowed {
    explicit Borrowed(Readers& owner) : readers(owner), database(owner.take()) {}
    ~Borrowed() { readers.put(std::move(database)); }
    Readers& readers;
    std::unique_ptr<db::Database> database;
  };

  std::unique_ptr<db::Database> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        auto database = std::move(idle_.back());
        idle_.pop_back();
        return database;
      }
    }
    return std::make_unique<db::Database>(path_, db::Database::Mode::kReadOnly);
  }
  void put(std::unique_ptr<db::Database> database) {
    constexpr std::size_t kIdle = 8;  // as many as there are handler threads
    const std::lock_guard lock(mutex_);
    if (idle_.size() < kIdle) idle_.push_back(std::move(database));
  }

  std::filesystem::path path_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<db::Database>> idle_;
};

}  // namespace

struct SqliteTaskStore::State {
  State(const std::filesystem::path& path, const Clock& time)
      : clock(time), lock(lock_database(path)), database(migrated(path)), readers(path) {
    renew_live_leases();
    writer.emplace(*database);
  }

  const Clock& clock;
  FileDescriptor lock;
  std::unique_ptr<db::Database> database;  // the writer's
  Readers readers;
  LeaseTimes leases;
  std::mutex listener_mutex;
  std::vector<std::function<void(const CommitNews&)>> listeners;
  std::optional<GroupWriter> writer;  // last: ends before what its changes use

  static std::unique_ptr<db::Database> migrated(const std::filesystem::path& path) {
    auto database = std::make_unique<db::Database>(path);
    database->migrate(sqlite_migrations());
    return database;
  }

  void renew_live_leases() {
    db::Statement& query = database->prepare(
        "SELECT lease_token, id, lease_ms, cancel_requested FROM tasks WHERE state = 2 "
        "AND lease_token IS NOT NULL");
    const SteadyTime now = clock.steady_now();
    while (query.step()) {
      const std::chrono::milliseconds duration(query.integer(2));
      leases.add(query.text(0), {query.text(1), duration, now + duration, query.integer(3) != 0});
    }
  }

  /// Runs `work` as one durable transaction and applies its effects after the commit.
  void change(const std::function<void(SqliteChange&)>& work) {
    std::optional<SqliteChange> whole;
    writer->run(
        [&] {
          whole.emplace(*database, clock.system_now());
          work(*whole);
        },
        [&] { apply(whole->effects()); });
  }

  void apply(const Effects& effects) {
    leases.apply(effects, clock.steady_now());
    if (!effects.news.became_ready && effects.news.events_of.empty()) return;
    const std::lock_guard guard(listener_mutex);
    for (const auto& listener : listeners) listener(effects.news);
  }
};

SqliteTaskStore::SqliteTaskStore(const std::filesystem::path& path, const Clock& clock)
    : state_(std::make_unique<State>(path, clock)) {}
SqliteTaskStore::~SqliteTaskStore() = default;

void SqliteTaskStore::transact(const std::function<void(TaskChanges&)>& work) {
  state_->change(work);
}

std::vector<HeartbeatResult> SqliteTaskStore::heartbeat(const std::vector<LeaseRef>& leases) {
  std::vector<HeartbeatResult> results;
  for (const LeaseRef& lease : leases) {
    HeartbeatResult& result = results.emplace_back();
    result.task_id = lease.task_id;
    const auto renewed =
        state_->leases.renew(lease.token.value, lease.task_id, state_->clock.steady_now());
    if (renewed) {
      result.answer = {state_->clock.system_now() + renewed->duration, renewed->cancel_requested};
      continue;
    }
    try {
      state_->readers.run([&](db::Database& database) -> int {
        ErrorInfo info;
        info.target = load_row(database, lease.task_id).id;
        throw Conflict("the lease is lost", std::move(info));
      });
    } catch (const NotFound&) {
      result.problem = std::current_exception();
    } catch (const TaskContextValidationError&) {
      result.problem = std::current_exception();
    } catch (const Conflict&) {
      result.problem = std::current_exception();
    }
  }
  return results;
}

std::optional<std::chrono::nanoseconds> SqliteTaskStore::expire_leases() {
  if (!state_->leases.due(state_->clock.steady_now()).empty()) {
    state_->change([&](SqliteChange& change) {
      // Asked again on the writer's thread: a heartbeat may have come in between.
      for (const LeaseRef& lease : state_->leases.due(state_->clock.steady_now())) {
        change.expire(lease.task_id, lease.token.value);
      }
    });
  }
  const auto next = state_->leases.next();
  if (!next) return std::nullopt;
  return std::max(std::chrono::nanoseconds{0},
                  std::chrono::nanoseconds{*next - state_->clock.steady_now()});
}

Task SqliteTaskStore::task(const std::string& task_id) {
  return state_->readers.run(
      [&](db::Database& database) { return to_task(database, load_row(database, task_id)); });
}

TaskPage SqliteTaskStore::tasks(const TaskQuery& query) {
  return state_->readers.run([&](db::Database& database) { return query_tasks(database, query); });
}

Taskset SqliteTaskStore::taskset(const std::string& spec) {
  return state_->readers.run([&](db::Database& database) { return query_taskset(database, spec); });
}

TasksetPage SqliteTaskStore::tasksets(const std::string& cursor, int limit) {
  return state_->readers.run(
      [&](db::Database& database) { return query_tasksets(database, cursor, limit); });
}

EventPage SqliteTaskStore::events(const EventQuery& query) {
  return state_->readers.run([&](db::Database& database) { return query_events(database, query); });
}

std::int64_t SqliteTaskStore::newest_event() {
  return state_->readers.run([](db::Database& database) { return query_newest_event(database); });
}

TaskGraph SqliteTaskStore::graph(const std::string& spec) {
  return state_->readers.run([&](db::Database& database) { return query_graph(database, spec); });
}

std::map<TaskState, std::int64_t> SqliteTaskStore::counts() {
  return state_->readers.run([](db::Database& database) { return query_counts(database); });
}

void SqliteTaskStore::on_commit(std::function<void(const CommitNews&)> listener) {
  const std::lock_guard lock(state_->listener_mutex);
  state_->listeners.push_back(std::move(listener));
}

void SqliteTaskStore::check() {
  if (state_->writer->failed()) {
    throw StorageError("the database takes no more changes since an earlier failure");
  }
  state_->readers.run([](db::Database& database) {
    database.prepare("SELECT 1 FROM tasks LIMIT 1").run();
    return true;
  });
}

}  // namespace necrocode::registry
