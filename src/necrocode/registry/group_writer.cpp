#include "necrocode/registry/group_writer.hpp"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <semaphore>
#include <thread>

namespace necrocode::registry {
namespace {

/// In one commit at most: bounds how long the first change waits for the last.
constexpr std::size_t kChangesPerCommit = 512;

/// Lives on the stack of the caller, who waits for `done`.
struct Job {
  std::function<void()> change;
  std::function<void()> committed;
  std::exception_ptr error;
  std::binary_semaphore done{0};
};

bool ends_the_commit(const db::DatabaseError& error) {
  return !error.is_constraint();
}

}  // namespace

struct GroupWriter::State {
  explicit State(db::Database& connection) : database(connection) {}

  db::Database& database;
  mutable std::mutex mutex;
  std::condition_variable wake;
  std::deque<Job*> queue;  // bounded by the callers: each waits for its one job
  bool stopping = false;
  bool failed = false;
  std::thread thread;

  void work();
  void commit(const std::vector<Job*>& batch);
  void run_in_savepoint(Job& job);
  void fail_all(const std::vector<Job*>& batch, const std::exception_ptr& error);
};

GroupWriter::GroupWriter(db::Database& database) : state_(std::make_unique<State>(database)) {
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

void GroupWriter::run(std::function<void()> change, std::function<void()> committed) {
  Job job;
  job.change = std::move(change);
  job.committed = std::move(committed);
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->failed || state_->stopping) {
      throw StorageError("the database takes no more changes since an earlier failure");
    }
    state_->queue.push_back(&job);
  }
  state_->wake.notify_one();
  job.done.acquire();
  if (job.error) std::rethrow_exception(job.error);
}

bool GroupWriter::failed() const {
  const std::lock_guard lock(state_->mutex);
  return state_->failed;
}

void GroupWriter::State::work() {
  std::vector<Job*> batch;
  while (true) {
    batch.clear();
    bool usable = true;
    {
      std::unique_lock lock(mutex);
      wake.wait(lock, [this] { return stopping || !queue.empty(); });
      if (queue.empty()) return;
      while (!queue.empty() && batch.size() < kChangesPerCommit) {
        batch.push_back(queue.front());
        queue.pop_front();
      }
      usable = !failed;
    }
    if (usable) {
      commit(batch);
    } else {
      fail_all(batch, std::make_exception_ptr(StorageError("an earlier failure of the database")));
    }
    for (Job* job : batch) job->done.release();
  }
}

void GroupWriter::State::commit(const std::vector<Job*>& batch) {
  bool begun = false;
  try {
    db::Transaction transaction(database);
    begun = true;
    for (Job* job : batch) run_in_savepoint(*job);
    transaction.commit();
  } catch (const db::DatabaseError& error) {
    if (begun && !error.is_full()) {
      const std::lock_guard lock(mutex);
      failed = true;
    }
    fail_all(batch, std::current_exception());
    return;
  }
  for (Job* job : batch) {
    if (!job->error && job->committed) job->committed();
  }
}

void GroupWriter::State::run_in_savepoint(Job& job) {
  database.prepare("SAVEPOINT change").run();
  try {
    job.change();
  } catch (const db::DatabaseError& error) {
    if (ends_the_commit(error)) throw;
    job.error = std::current_exception();
  } catch (...) {
    job.error = std::current_exception();
  }
  if (job.error) database.prepare("ROLLBACK TO change").run();
  database.prepare("RELEASE change").run();
}

void GroupWriter::State::fail_all(const std::vector<Job*>& batch, const std::exception_ptr& error) {
  for (Job* job : batch) {
    if (!job->error) job->error = error;
  }
}

}  // namespace necrocode::registry
