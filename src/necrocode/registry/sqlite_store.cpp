#include "necrocode/registry/sqlite_store.hpp"

#include <algorithm>
#include <mutex>
#include <semaphore>
#include <set>
#include <unordered_map>

#include "necrocode/base/file.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/db/backup.hpp"
#include "necrocode/db/lock.hpp"
#include "necrocode/registry/group_writer.hpp"
#include "necrocode/registry/sqlite_changes.hpp"
#include "necrocode/registry/sqlite_queries.hpp"

namespace necrocode::registry {
namespace {

/// What is due when, by the monotonic clock: the ends of leases and of waits. The database says
/// what they are, this says when; so no step of the wall clock moves any of it.
class DueTimes {
 public:
  struct Lease {
    std::int64_t seq = 0;
    std::string task_id;
    std::chrono::milliseconds duration{0};
    bool cancel_requested = false;
    SteadyTime ends{};
  };
  struct Due {
    std::vector<LeaseRef> leases;
    std::vector<Effects::TaskWait> tasks;
    std::vector<Effects::ProviderWait> providers;
    bool empty() const { return leases.empty() && tasks.empty() && providers.empty(); }
  };

  /// True when something is due before the time that plan() told.
  bool apply(const Effects& effects, SteadyTime now) {
    const std::lock_guard lock(mutex_);
    for (const Effects::Lease& lease : effects.leases_started) {
      put(lease.token, {lease.seq, lease.task_id, lease.duration}, now);
    }
    for (const std::string& token : effects.cancel_requested) {
      if (const auto found = leases_.find(token); found != leases_.end()) {
        found->second.cancel_requested = true;
      }
    }
    for (const std::string& token : effects.leases_ended) remove(token);
    for (const Effects::TaskWait& wait : effects.task_waits) {
      tasks_.emplace(now + wait.duration, wait);
    }
    for (const Effects::ProviderWait& wait : effects.provider_waits) {
      providers_.emplace(now + wait.duration, wait);
    }
    const SteadyTime next = earliest();
    return next < std::exchange(planned_, std::min(planned_, next));
  }

  void add(const std::string& token, Lease lease, SteadyTime now) {
    const std::lock_guard lock(mutex_);
    put(token, std::move(lease), now);
  }

  /// The lease after its renewal; nothing when it has ended. `task_id` may be bare.
  std::optional<Lease> renew(const std::string& token, const std::string& task_id, SteadyTime now) {
    const std::lock_guard lock(mutex_);
    const auto found = leases_.find(token);
    if (found == leases_.end() || found->second.ends <= now) return std::nullopt;
    const Lease lease = found->second;
    if (lease.task_id != task_id && !lease.task_id.ends_with(":" + task_id)) return std::nullopt;
    put(token, lease, now);
    return lease;
  }

  Due due(SteadyTime now) const {
    const std::lock_guard lock(mutex_);
    Due all;
    std::map<std::int64_t, LeaseRef> in_order;  // of the tasks' creation, whatever ends first
    for (auto end = ends_.begin(); end != ends_.end() && end->first <= now; ++end) {
      const Lease& lease = leases_.at(end->second);
      in_order.emplace(lease.seq, LeaseRef{lease.task_id, LeaseToken{end->second}});
    }
    for (auto& [seq, lease] : in_order) all.leases.push_back(std::move(lease));
    for (auto it = tasks_.begin(); it != tasks_.end() && it->first <= now; ++it) {
      all.tasks.push_back(it->second);
    }
    for (auto it = providers_.begin(); it != providers_.end() && it->first <= now; ++it) {
      all.providers.push_back(it->second);
    }
    return all;
  }

  /// Waits that are over, once that is on disk.
  void remove_waits(SteadyTime until) {
    const std::lock_guard lock(mutex_);
    tasks_.erase(tasks_.begin(), tasks_.upper_bound(until));
    providers_.erase(providers_.begin(), providers_.upper_bound(until));
  }

  /// When something is due next, which is what the caller acts on; nothing: never, as things are.
  std::optional<SteadyTime> plan() {
    const std::lock_guard lock(mutex_);
    planned_ = earliest();
    return planned_ == SteadyTime::max() ? std::nullopt : std::optional(planned_);
  }

 private:
  // Under the mutex.
  SteadyTime earliest() const {
    SteadyTime first = SteadyTime::max();
    const auto offer = [&first](const auto& times) {
      if (!times.empty()) first = std::min(first, times.begin()->first);
    };
    offer(ends_);
    offer(tasks_);
    offer(providers_);
    return first;
  }
  void put(const std::string& token, Lease lease, SteadyTime now) {
    remove(token);
    lease.ends = now + lease.duration;
    ends_.emplace(lease.ends, token);
    leases_.insert_or_assign(token, std::move(lease));
  }
  void remove(const std::string& token) {
    const auto found = leases_.find(token);
    if (found == leases_.end()) return;
    ends_.erase({found->second.ends, token});
    leases_.erase(found);
  }

  mutable std::mutex mutex_;
  std::unordered_map<std::string, Lease> leases_;      // by token
  std::set<std::pair<SteadyTime, std::string>> ends_;  // of each of them
  std::multimap<SteadyTime, Effects::TaskWait> tasks_;
  std::multimap<SteadyTime, Effects::ProviderWait> providers_;
  SteadyTime planned_ = SteadyTime::min();  // nobody waits for anything yet
};

/// Connections for reading, made when needed, one caller at a time each.
class Readers {
 public:
  explicit Readers(std::filesystem::path path) : path_(std::move(path)) {}

  /// Runs `read` on one snapshot.
  template <class Read>
  auto run(Read&& read) {
    Borrowed borrowed(*this);
    borrowed.database->prepare("BEGIN").run();
    try {
      auto result = read(*borrowed.database);
      borrowed.database->prepare("COMMIT").run();
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
  State(const std::filesystem::path& path, const Clock& time, StoreOptions given)
      : clock(time),
        options(std::move(given)),
        lock(db::lock_database(path, "its task registry")),
        database(migrated(path)),
        readers(path) {
    renew_live_leases();
    take_up_waits();
    GroupWriter::Hooks hooks;
    hooks.begun = [this] { unsettled.clear(); };
    hooks.ending = [this] {
      SqliteChange last = new_change();
      last.settle();
      at_end = std::move(last.effects());
    };
    hooks.committed = [this] { apply(at_end); };
    writer = std::make_unique<GroupWriter>(*database, std::move(hooks));
  }

  const Clock& clock;
  const StoreOptions options;
  /// Two processes would each time the leases of the other's claims wrongly.
  FileDescriptor lock;
  std::unique_ptr<db::Database> database;  // the writer's
  Readers readers;
  DueTimes due;
  std::mutex listener_mutex;
  std::vector<std::function<void(const CommitNews&)>> listeners;
  // Of the commit under way, on the writer's thread.
  SqliteChange::UnsettledSpecs unsettled;
  Effects at_end;
  // Last: ends before what its changes use, and is there for them until then.
  std::unique_ptr<GroupWriter> writer;

  SqliteChange new_change() { return {*database, clock.system_now(), options, unsettled}; }

  static std::unique_ptr<db::Database> migrated(const std::filesystem::path& path) {
    auto database = std::make_unique<db::Database>(path);
    db::migrate_with_backup(*database, path, sqlite_migrations());
    return database;
  }

  void renew_live_leases() {
    db::Statement& query = database->prepare(
        "SELECT lease_token, id, lease_ms, cancel_requested, seq FROM tasks WHERE state = 2 "
        "AND lease_token IS NOT NULL");
    const SteadyTime now = clock.steady_now();
    while (query.step()) {
      const std::chrono::milliseconds duration(query.integer(2));
      due.add(query.text(0), {query.integer(4), query.text(1), duration, query.integer(3) != 0},
              now);
    }
  }

  /// By the wall clock, as nothing else has gone on since they were written.
  void take_up_waits() {
    const std::int64_t now_ms = to_unix_ms(clock.system_now());
    const auto rest = [now_ms](std::int64_t until_ms) {
      return std::chrono::milliseconds(std::max<std::int64_t>(0, until_ms - now_ms));
    };
    Effects effects;
    db::Statement& tasks =
        database->prepare("SELECT seq, not_before_ms FROM tasks WHERE hold = -1");
    while (tasks.step()) {
      effects.task_waits.push_back({tasks.integer(0), tasks.integer(1), rest(tasks.integer(1))});
    }
    db::Statement& providers =
        database->prepare("SELECT name, until_ms FROM providers WHERE due = 0");
    while (providers.step()) {
      const auto left =
          std::min<std::chrono::milliseconds>(rest(providers.integer(1)), limits::kParkTimeMax);
      effects.provider_waits.push_back({providers.text(0), providers.integer(1), left});
    }
    due.apply(effects, clock.steady_now());
  }

  /// Runs `work` as one durable transaction and applies its effects after the commit.
  template <class Work>
  void change_later(Work work, std::function<void(std::exception_ptr)> done) {
    // The change stands where its work and its end both reach it.
    auto whole = std::make_shared<std::optional<SqliteChange>>();
    writer->run_later(
        [this, whole, work = std::move(work)] {
          whole->emplace(new_change());
          work(**whole);
          unsettled = (*whole)->unsettled();
        },
        [this, whole, done = std::move(done)](const std::exception_ptr& error) {
          if (!error) apply((*whole)->effects());
          done(error);
        });
  }

  void change(const std::function<void(SqliteChange&)>& work) {
    std::binary_semaphore finished{0};
    std::exception_ptr thrown;
    change_later([&work](SqliteChange& change) { work(change); },
                 [&](const std::exception_ptr& error) {
                   thrown = error;
                   finished.release();
                 });
    finished.acquire();
    if (thrown) std::rethrow_exception(thrown);
  }

  void apply(Effects& effects) {
    CommitNews& news = effects.news;
    news.due_sooner = due.apply(effects, clock.steady_now());
    if (!news.became_claimable && !news.due_sooner && news.events_of.empty()) return;
    const std::lock_guard guard(listener_mutex);
    for (const auto& listener : listeners) listener(news);
  }
};

SqliteTaskStore::SqliteTaskStore(const std::filesystem::path& path, const Clock& clock,
                                 StoreOptions options)
    : state_(std::make_unique<State>(path, clock, std::move(options))) {}
SqliteTaskStore::~SqliteTaskStore() = default;

void SqliteTaskStore::transact(const std::function<void(TaskChanges&)>& work) {
  state_->change(work);
}

void SqliteTaskStore::transact_later(std::function<void(TaskChanges&)> work,
                                     std::function<void(std::exception_ptr)> done) {
  state_->change_later(std::move(work), std::move(done));
}

std::vector<HeartbeatResult> SqliteTaskStore::heartbeat(const std::vector<LeaseRef>& leases) {
  std::vector<HeartbeatResult> results;
  for (const LeaseRef& lease : leases) {
    HeartbeatResult& result = results.emplace_back();
    result.task_id = lease.task_id;
    const auto renewed =
        state_->due.renew(lease.token.value, lease.task_id, state_->clock.steady_now());
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

std::optional<std::chrono::nanoseconds> SqliteTaskStore::do_due() {
  State& state = *state_;
  if (!state.due.due(state.clock.steady_now()).empty()) {
    SteadyTime looked_at;
    state.change([&](SqliteChange& change) {
      // Looked at again on the writer's thread: a heartbeat may have come in between.
      looked_at = state.clock.steady_now();
      const DueTimes::Due due = state.due.due(looked_at);
      for (const LeaseRef& lease : due.leases) change.expire(lease.task_id, lease.token.value);
      for (const Effects::TaskWait& wait : due.tasks) change.end_wait(wait);
      for (const Effects::ProviderWait& wait : due.providers) change.end_wait(wait);
    });
    state.due.remove_waits(looked_at);
  }
  const auto next = state.due.plan();
  if (!next) return std::nullopt;
  return std::max(std::chrono::nanoseconds{0},
                  std::chrono::nanoseconds{*next - state.clock.steady_now()});
}

bool SqliteTaskStore::purge(const Retention& retention) {
  bool more = false;
  state_->change([&](SqliteChange& change) { more = change.purge(retention); });
  return more;
}

Task SqliteTaskStore::task(const std::string& task_id) {
  return state_->readers.run(
      [&](db::Database& database) { return to_task(database, load_row(database, task_id)); });
}

TaskPage SqliteTaskStore::tasks(const TaskQuery& query) {
  return state_->readers.run([&](db::Database& database) { return query_tasks(database, query); });
}

std::vector<AttemptRecord> SqliteTaskStore::attempts(const std::string& task_id) {
  return state_->readers.run(
      [&](db::Database& database) { return query_attempts(database, task_id); });
}

Explanation SqliteTaskStore::explain(const std::string& task_id) {
  return state_->readers.run([&](db::Database& database) {
    return query_explanation(database, state_->options, task_id);
  });
}

std::vector<ParkedProvider> SqliteTaskStore::parked_providers() {
  return state_->readers.run(
      [](db::Database& database) { return query_parked_providers(database); });
}

Taskset SqliteTaskStore::taskset(const std::string& spec, TasksetPart part) {
  return state_->readers.run(
      [&](db::Database& database) { return query_taskset(database, spec, part); });
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
