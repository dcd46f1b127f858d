// floor_sqlite FOLDER CLIENTS TASKS [threads]: the floor of the task registry: its durable work of
// a claim and a completion, with bare SQLite in one thread. Each of CLIENTS claims a task, then
// completes it; what all of them ask for next is one commit. With `threads` each client is a thread
// that waits for its answer, and what has been asked for meanwhile is one commit. No HTTP, no JSON,
// no check beyond the lease. Prints {"tasks","commits","wall_seconds","cpu_seconds"}, without the
// making of TASKS ready tasks.
#include <sqlite3.h>
#include <sys/resource.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <random>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr const char* kSchema = R"sql(
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
CREATE TABLE tasks (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, priority INTEGER NOT NULL,
  state INTEGER NOT NULL, epoch INTEGER NOT NULL, lease_token TEXT, runner_id TEXT NOT NULL,
  updated_ms INTEGER NOT NULL, title TEXT NOT NULL);
CREATE INDEX tasks_ready ON tasks (priority DESC, seq) WHERE state = 1;
CREATE TABLE attempts (
  task_seq INTEGER NOT NULL, epoch INTEGER NOT NULL, token TEXT NOT NULL, runner_id TEXT NOT NULL,
  started_ms INTEGER NOT NULL, ended_ms INTEGER, outcome TEXT,
  PRIMARY KEY (task_seq, epoch)) WITHOUT ROWID;
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, task_seq INTEGER NOT NULL, task_id TEXT NOT NULL,
  event_type TEXT NOT NULL, data TEXT NOT NULL, recorded_ms INTEGER NOT NULL);
CREATE INDEX events_by_task ON events (task_seq);
)sql";

sqlite3* database = nullptr;

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "floor_sqlite: %s: %s\n", what, sqlite3_errmsg(database));
  std::exit(1);
}

void execute(const char* sql) {
  if (sqlite3_exec(database, sql, nullptr, nullptr, nullptr) != SQLITE_OK) die(sql);
}

class Statement {
 public:
  explicit Statement(const char* sql) : sql_(sql) {
    if (sqlite3_prepare_v3(database, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement_, nullptr) !=
        SQLITE_OK) {
      die(sql);
    }
  }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement() { sqlite3_finalize(statement_); }

  Statement& bind(sqlite3_int64 number) {
    sqlite3_bind_int64(statement_, next_++, number);
    return *this;
  }
  Statement& bind(const std::string& text) {
    sqlite3_bind_text(statement_, next_++, text.data(), static_cast<int>(text.size()),
                      SQLITE_STATIC);
    return *this;
  }
  /// True when there is a row, which reset() lets go.
  bool step() {
    const int code = sqlite3_step(statement_);
    if (code != SQLITE_ROW && code != SQLITE_DONE) die(sql_);
    if (code == SQLITE_DONE) reset();
    return code == SQLITE_ROW;
  }
  void reset() {
    sqlite3_reset(statement_);
    next_ = 1;
  }
  sqlite3_int64 integer(int column) { return sqlite3_column_int64(statement_, column); }
  std::string text(int column) {
    return reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  }

 private:
  const char* sql_;
  sqlite3_stmt* statement_ = nullptr;
  int next_ = 1;
};

sqlite3_int64 now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

struct Client {
  std::string id;  // of the task that it holds
  std::string token;
};

class Registry {
 public:
  /// Gives `client` the next ready task; false when there is none.
  bool claim(Client& client) {
    if (!next_.step()) return false;
    const sqlite3_int64 seq = next_.integer(0);
    client.id = next_.text(1);
    const sqlite3_int64 epoch = next_.integer(2) + 1;
    next_.reset();
    client.token = token();
    const sqlite3_int64 now = now_ms();
    start_.bind(epoch).bind(client.token).bind(runner_).bind(now).bind(seq).step();
    begin_attempt_.bind(seq).bind(epoch).bind(client.token).bind(runner_).bind(now).step();
    record(seq, client.id, assigned_, assigned_data_, now);
    return true;
  }
  void complete(const Client& client) {
    if (!held_.bind(client.id).bind(client.token).step()) die("a lease is lost");
    const sqlite3_int64 seq = held_.integer(0);
    const sqlite3_int64 epoch = held_.integer(1);
    held_.reset();
    const sqlite3_int64 now = now_ms();
    finish_.bind(now).bind(seq).step();
    end_attempt_.bind(now).bind(seq).bind(epoch).step();
    record(seq, client.id, completed_, no_data_, now);
  }

 private:
  void record(sqlite3_int64 seq, const std::string& id, const std::string& type,
              const std::string& data, sqlite3_int64 now) {
    record_.bind(seq).bind(id).bind(type).bind(data).bind(now).step();
  }
  std::string token() {
    char text[33];
    std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(random_()),
                  static_cast<unsigned long long>(random_()));
    return text;
  }

  std::mt19937_64 random_{std::random_device{}()};
  const std::string runner_ = "bench";
  const std::string assigned_ = "TaskAssigned";
  const std::string assigned_data_ = R"({"runner_id":"bench","lease_seconds":600.0})";
  const std::string completed_ = "TaskCompleted";
  const std::string no_data_ = "{}";
  Statement next_{
      "SELECT seq, id, epoch FROM tasks WHERE state = 1 ORDER BY priority DESC, seq LIMIT 1"};
  Statement start_{
      "UPDATE tasks SET state = 2, epoch = ?, lease_token = ?, runner_id = ?, updated_ms = ? "
      "WHERE seq = ?"};
  Statement begin_attempt_{
      "INSERT INTO attempts (task_seq, epoch, token, runner_id, started_ms) "
      "VALUES (?, ?, ?, ?, ?)"};
  Statement held_{"SELECT seq, epoch FROM tasks WHERE id = ? AND lease_token = ? AND state = 2"};
  Statement finish_{"UPDATE tasks SET state = 3, lease_token = NULL, updated_ms = ? WHERE seq = ?"};
  Statement end_attempt_{
      "UPDATE attempts SET ended_ms = ?, outcome = 'done' WHERE task_seq = ? AND epoch = ?"};
  Statement record_{
      "INSERT INTO events (task_seq, task_id, event_type, data, recorded_ms) "
      "VALUES (?, ?, ?, ?, ?)"};
};

void make_tasks(long count) {
  execute("BEGIN");
  Statement insert("INSERT INTO tasks VALUES (?, ?, 0, 1, 0, NULL, '', ?, 'one of many')");
  for (long seq = 1; seq <= count; ++seq) {
    const std::string id = "bench:" + std::to_string(seq);
    insert.bind(seq).bind(id).bind(now_ms()).step();
  }
  execute("COMMIT");
  execute("PRAGMA wal_checkpoint(TRUNCATE)");
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

/// All clients in step; the commits that it took.
long drain_in_step(std::size_t client_count, long tasks) {
  Registry registry;
  std::vector<Client> clients(client_count);
  long commits = 0;
  for (long done = 0; done < tasks; commits += 2) {
    std::size_t busy = 0;
    execute("BEGIN IMMEDIATE");
    while (busy < clients.size() && registry.claim(clients[busy])) ++busy;
    execute("COMMIT");
    execute("BEGIN IMMEDIATE");
    for (std::size_t i = 0; i < busy; ++i) registry.complete(clients[i]);
    execute("COMMIT");
    done += static_cast<long>(busy);
  }
  return commits;
}

/// What the threads ask for, until the last of them has ended.
class Inbox {
 public:
  explicit Inbox(std::size_t clients) : clients_(clients) {}

  /// False when there is no task.
  bool ask(Client& client, bool claim) {
    Request request{client, claim};
    {
      const std::lock_guard lock(mutex_);
      asked_.push_back(&request);
    }
    wake_.notify_one();
    request.answered.acquire();
    return request.granted;
  }
  void leave() {
    const std::lock_guard lock(mutex_);
    --clients_;
    wake_.notify_one();
  }
  /// The commits that it took.
  long serve() {
    Registry registry;
    std::vector<Request*> batch;
    for (long commits = 0;; ++commits) {
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return clients_ == 0 || !asked_.empty(); });
        if (asked_.empty()) return commits;
        batch.swap(asked_);
      }
      execute("BEGIN IMMEDIATE");
      for (Request* request : batch) request->answer(registry);
      execute("COMMIT");
      for (Request* request : batch) request->answered.release();
      batch.clear();
    }
  }

 private:
  struct Request {
    Client& client;
    bool claim;
    bool granted = true;
    std::binary_semaphore answered{0};

    void answer(Registry& registry) {
      if (claim) {
        granted = registry.claim(client);
      } else {
        registry.complete(client);
      }
    }
  };

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Request*> asked_;
  std::size_t clients_;
};

long drain_by_threads(std::size_t client_count) {
  Inbox inbox(client_count);
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < client_count; ++i) {
    threads.emplace_back([&inbox] {
      Client client;
      while (inbox.ask(client, true)) inbox.ask(client, false);
      inbox.leave();
    });
  }
  return inbox.serve();
}

}  // namespace

int main(int argc, char** argv) {
  const bool threads = argc == 5 && std::string(argv[4]) == "threads";
  const long clients = argc == 4 || threads ? std::atol(argv[2]) : 0;
  const long tasks = argc == 4 || threads ? std::atol(argv[3]) : 0;
  if (clients < 1 || tasks < 1) {
    std::fputs("usage: floor_sqlite FOLDER CLIENTS TASKS [threads]\n", stderr);
    return 2;
  }
  const std::string path = std::string(argv[1]) + "/floor.db";
  if (sqlite3_open(path.c_str(), &database) != SQLITE_OK) die("open");
  execute(kSchema);
  make_tasks(tasks);
  const auto begin = std::chrono::steady_clock::now();
  const double cpu_before = cpu_seconds();
  const auto count = static_cast<std::size_t>(clients);
  const long commits = threads ? drain_by_threads(count) : drain_in_step(count, tasks);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin;
  std::printf("{\"tasks\":%ld,\"commits\":%ld,\"wall_seconds\":%.6f,\"cpu_seconds\":%.6f}\n", tasks,
              commits, wall.count(), cpu_seconds() - cpu_before);
  sqlite3_close(database);
  return 0;
}
