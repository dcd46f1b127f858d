#include "necrocode/registry/sqlite_store.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <semaphore>

#include "necrocode/base/file.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/db/backup.hpp"
#include "necrocode/db/lock.hpp"
#include "necrocode/registry/due_times.hpp"
#include "necrocode/registry/group_writer.hpp"
#include "necrocode/registry/sqlite_changes.hpp"
#include "necrocode/registry/sqlite_queries.hpp"

namespace necrocode::registry {
namespace {

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
    hooks.begun = [this] { specs.clear(); };
    hooks.saved = [this] { saved_specs = specs; };
    hooks.undone = [this] { specs = saved_specs; };
    hooks.ending = [this] {
      SqliteChange last = new_change();
      last.end_commit();
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
  std::atomic<std::int64_t> events_looked_through = 0;  ///< by the purge under way
  // Of the commit under way, on the writer's thread.
  SqliteChange::SpecsInCommit specs;
  SqliteChange::SpecsInCommit saved_specs;
  Effects at_end;
  // Last: ends before what its changes use, and is there for them until then.
  std::unique_ptr<GroupWriter> writer;

  SqliteChange new_change() { return {*database, clock.system_now(), options, specs}; }

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
  const std::int64_t from = state_->events_looked_through;
  std::int64_t after = from;
  state_->change([&](SqliteChange& change) {
    after = from;
    more = change.purge(retention, after);
  });
  state_->events_looked_through = after;
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
