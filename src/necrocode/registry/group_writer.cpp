#include "necrocode/registry/group_writer.hpp"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <semaphore>
#include <thread>

#include "necrocode/observe/log.hpp"

namespace necrocode::registry {
namespace {

/// In one commit at most: bounds how long the first change waits for the last.
constexpr std::size_t kChangesPerCommit = 512;
/// Of 4 KiB, in the log: then they are written to the database.
constexpr int kCheckpointPages = 1000;
constexpr const char* kNoMoreChanges =
    "the database takes no more changes since an earlier failure";

struct Job {
  std::function<void()> change;
  std::function<void(std::exception_ptr)> done;
  std::exception_ptr error{};
};

bool ends_the_commit(const db::DatabaseError& error) {
  return !error.is_constraint() && !error.is_too_big();
}

}  // namespace

struct GroupWriter::State {
  State(db::Database& connection, Hooks given) : database(connection), hooks(std::move(given)) {}

  db::Database& database;
  const Hooks hooks;
  mutable std::mutex mutex;
  std::condition_variable wake;
  std::deque<Job> queue;
  bool stopping = false;
  bool failed = false;
  bool begun = false;  ///< of the commit under way: its transaction stands
  std::thread thread;

  void work();
  void commit(std::vector<Job>& batch);
  bool commit_all(std::vector<Job>& batch);
  void commit_apart(std::vector<Job>& batch);
  void checkpoint();
  static void run(Job& job);
  void run_in_savepoint(Job& job);
  void end(db::Transaction& transaction);
  void fail_all(std::vector<Job>& batch, const std::exception_ptr& error);
};

GroupWriter::GroupWriter(db::Database& database, Hooks hooks)
    : state_(std::make_unique<State>(database, std::move(hooks))) {
  database.take_over_checkpoints();
  state_->thread = std::thread([state = state_.get()] { state->work(); });
}

GroupWriter::~GroupWriter() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->wake.notify_all();
  state_->thread.join();
}

void GroupWriter::run_later(std::function<void()> change,
                            std::function<void(std::exception_ptr)> done) {
  {
    const std::lock_guard lock(state_->mutex);
    if (!state_->failed && !state_->stopping) {
      state_->queue.push_back({std::move(change), std::move(done)});
      done = nullptr;
    }
  }
  if (done) return done(std::make_exception_ptr(StorageError(kNoMoreChanges)));
  state_->wake.notify_one();
}

void GroupWriter::run(std::function<void()> change) {
  std::binary_semaphore finished{0};
  std::exception_ptr error;
  run_later(std::move(change), [&](std::exception_ptr thrown) {
    error = std::move(thrown);
    finished.release();
  });
  finished.acquire();
  if (error) std::rethrow_exception(error);
}

bool GroupWriter::failed() const {
  const std::lock_guard lock(state_->mutex);
  return state_->failed;
}

void GroupWriter::State::work() {
  std::vector<Job> batch;
  while (true) {
    batch.clear();
    bool usable = true;
    {
      std::unique_lock lock(mutex);
      wake.wait(lock, [this] { return stopping || !queue.empty(); });
      if (queue.empty()) return;
      while (!queue.empty() && batch.size() < kChangesPerCommit) {
        batch.push_back(std::move(queue.front()));
        queue.pop_front();
      }
      usable = !failed;
    }
    if (usable) {
      commit(batch);
    } else {
      fail_all(batch, std::make_exception_ptr(StorageError(kNoMoreChanges)));
    }
    for (Job& job : batch) job.done(job.error);
    if (usable && database.wal_pages() > kCheckpointPages) checkpoint();
  }
}

/// Most changes that fail do so before they write anything, and a savepoint for each costs a tenth
/// of all: so they are run without first, and once more, apart, when one of them has to be undone.
/// A database that cannot be begun with has lost nothing: somebody may hold its lock.
void GroupWriter::State::commit(std::vector<Job>& batch) {
  try {
    const bool made = commit_all(batch);
    if (!made && batch.size() == 1) return;  // there was nothing else to keep
    if (!made) commit_apart(batch);
  } catch (const db::DatabaseError& error) {
    if (begun && !error.is_full()) {
      const std::lock_guard lock(mutex);
      failed = true;
    }
    fail_all(batch, std::current_exception());
    return;
  }
  if (hooks.committed) hooks.committed();
}

/// False, and nothing has happened, when one would have to be undone.
bool GroupWriter::State::commit_all(std::vector<Job>& batch) {
  begun = false;
  db::Transaction transaction(database);
  begun = true;
  if (hooks.begun) hooks.begun();
  for (Job& job : batch) {
    const std::int64_t before = database.total_changes();
    run(job);
    if (job.error && database.total_changes() != before) return false;
  }
  end(transaction);
  return true;
}

void GroupWriter::State::commit_apart(std::vector<Job>& batch) {
  begun = false;
  db::Transaction transaction(database);
  begun = true;
  if (hooks.begun) hooks.begun();
  for (Job& job : batch) run_in_savepoint(job);
  end(transaction);
}

void GroupWriter::State::end(db::Transaction& transaction) {
  if (hooks.ending) hooks.ending();
  transaction.commit();
}

/// Nothing that was acknowledged hangs on it: the log has all of it. But a log that cannot be
/// written back grows for ever, on a disk that fails.
void GroupWriter::State::checkpoint() {
  try {
    database.checkpoint();
  } catch (const db::DatabaseError& error) {
    log::error("the database cannot be written", {{"error", error.what()}});
    if (error.is_full()) return;
    const std::lock_guard lock(mutex);
    failed = true;
  }
}

void GroupWriter::State::run(Job& job) {
  job.error = nullptr;
  try {
    job.change();
  } catch (const db::DatabaseError& error) {
    if (ends_the_commit(error)) throw;
    job.error = std::current_exception();
  } catch (...) {
    job.error = std::current_exception();
  }
}

void GroupWriter::State::run_in_savepoint(Job& job) {
  if (hooks.saved) hooks.saved();
  database.prepare("SAVEPOINT change").run();
  run(job);
  if (job.error) {
    database.prepare("ROLLBACK TO change").run();
    if (hooks.undone) hooks.undone();
  }
  database.prepare("RELEASE change").run();
}

/// Also those that had an error of their own: it may rest on a change that is undone now.
void GroupWriter::State::fail_all(std::vector<Job>& batch, const std::exception_ptr& error) {
  for (Job& job : batch) job.error = error;
}

}  // namespace necrocode::registry
