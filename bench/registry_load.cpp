// registry_load: load for a task registry at 127.0.0.1:PORT, from one thread that costs it little.
//   drain PORT CONNECTIONS TASKS separate|fused|claim [keys]
//       each connection claims one task and completes it, by two calls, by one that claims the
//       next, or only claims; with `keys` each call has an Idempotency-Key. Ends after TASKS tasks,
//       or when nothing is ready. Prints
//       {"tasks","errors","wall_seconds","cpu_seconds","p50_ms","p99_ms"}: of a single call.
//   pickup PORT COUNT
//       COUNT times: a claim waits, then one task is submitted. Prints
//       {"tasks","errors","wall_seconds","cpu_seconds","p50_ms","p99_ms","acknowledged_p99_ms"}:
//       from the submission to the answer to the claim; and from the answer to the submission, 0
//       when the claim's came first.
// Exits with 1 when a call fails.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Time = std::chrono::steady_clock::time_point;

Time now() {
  return std::chrono::steady_clock::now();
}
double ms_between(Time from, Time to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

struct Answer {
  int status = 0;
  std::string body;
};

/// A keep-alive connection with at most one request under way.
class Connection {
 public:
  explicit Connection(int port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("connect");
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() { ::close(fd_); }

  int fd() const { return fd_; }

  void post(std::string_view path, std::string_view body, std::string_view headers = "") {
    request_.assign("POST ").append(path).append(" HTTP/1.1\r\nHost: bench\r\n");
    request_.append("Content-Type: application/json\r\n").append(headers);
    request_.append("Content-Length: ").append(std::to_string(body.size()));
    request_.append("\r\n\r\n").append(body);
    for (std::string_view rest = request_; !rest.empty();) {
      const ssize_t sent = ::send(fd_, rest.data(), rest.size(), MSG_NOSIGNAL);
      if (sent <= 0) die("send");
      rest.remove_prefix(static_cast<std::size_t>(sent));
    }
  }

  /// After epoll or poll has said that something is there; nothing until the answer is whole.
  std::optional<Answer> receive() {
    char bytes[65536];
    const ssize_t got = ::recv(fd_, bytes, sizeof bytes, 0);
    if (got <= 0) die("the registry has closed a connection");
    buffer_.append(bytes, static_cast<std::size_t>(got));
    const std::size_t head = buffer_.find("\r\n\r\n");
    if (head == std::string::npos) return std::nullopt;
    const std::size_t whole = head + 4 + content_length(std::string_view(buffer_).substr(0, head));
    if (buffer_.size() < whole) return std::nullopt;
    Answer answer{std::atoi(buffer_.c_str() + 9), buffer_.substr(head + 4, whole - head - 4)};
    buffer_.erase(0, whole);
    return answer;
  }
  Answer await() {
    while (true) {
      if (auto answer = receive()) return std::move(*answer);
    }
  }

 private:
  static std::size_t content_length(std::string_view head) {
    constexpr std::string_view kName = "\r\nContent-Length: ";
    const std::size_t at = head.find(kName);
    return at == std::string_view::npos
               ? 0
               : std::strtoull(head.data() + at + kName.size(), nullptr, 10);
  }

  int fd_;
  std::string request_;
  std::string buffer_;
};

/// The first member of that name in `json` from `from` on; "" when there is none.
std::string member(std::string_view json, std::string_view name, std::size_t from = 0) {
  const std::string start = "\"" + std::string(name) + "\":\"";
  const std::size_t at = json.find(start, from);
  if (at == std::string_view::npos) return "";
  const std::size_t begin = at + start.size();
  return std::string(json.substr(begin, json.find('"', begin) - begin));
}

struct Lease {
  std::string task_id;
  std::string token;
  explicit operator bool() const { return !token.empty(); }
};

/// The one in `answer` that stands behind `mark`.
Lease lease_in(const Answer& answer, std::string_view mark) {
  const std::size_t at = answer.body.find(mark);
  if (answer.status != 200 || at == std::string::npos) return {};
  return {member(answer.body, "id", at), member(answer.body, "lease_token", at)};
}

class Figures {
 public:
  void call(double ms) { call_ms_.push_back(ms); }
  void error(const Answer& answer) {
    if (errors_++ == 0) std::fprintf(stderr, "%d %s\n", answer.status, answer.body.c_str());
  }
  void task() { ++tasks_; }
  long tasks() const { return tasks_; }

  static double percentile(std::vector<double>& values, double share) {
    if (values.empty()) return 0;
    const auto at = static_cast<std::size_t>(share * static_cast<double>(values.size() - 1));
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at),
                     values.end());
    return values[at];
  }
  /// The line, whose last members are `more`; the exit code.
  int print(const std::string& more = "") {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    std::printf("{\"tasks\":%ld,\"errors\":%ld,\"wall_seconds\":%.6f,\"cpu_seconds\":%.6f,", tasks_,
                errors_, ms_between(begin_, now()) / 1000,
                seconds(usage.ru_utime) + seconds(usage.ru_stime));
    std::printf("\"p50_ms\":%.4f,\"p99_ms\":%.4f%s}\n", percentile(call_ms_, 0.5),
                percentile(call_ms_, 0.99), more.c_str());
    return errors_ == 0 ? 0 : 1;
  }

 private:
  Time begin_ = now();
  long tasks_ = 0;
  long errors_ = 0;
  std::vector<double> call_ms_;
};

enum class Way { kSeparate, kFused, kClaimOnly };

class Drain {
 public:
  Drain(int port, int connections, long tasks, Way way, bool keys)
      : tasks_(tasks), way_(way), keys_(keys), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    for (int i = 0; i < connections; ++i) workers_.push_back(std::make_unique<Worker>(port));
    for (const auto& worker : workers_) {
      epoll_event event{EPOLLIN, {.ptr = worker.get()}};
      ::epoll_ctl(epoll_, EPOLL_CTL_ADD, worker->connection.fd(), &event);
    }
  }
  ~Drain() { ::close(epoll_); }

  int run() {
    for (const auto& worker : workers_) begin(*worker);
    while (busy_ > 0) {
      epoll_event events[64];
      const int count = ::epoll_wait(epoll_, events, 64, -1);
      for (int i = 0; i < count; ++i) {
        Worker& worker = *static_cast<Worker*>(events[i].data.ptr);
        const auto answer = worker.connection.receive();
        if (answer) go_on(worker, *answer);
      }
    }
    return figures_.print();
  }

 private:
  struct Worker {
    explicit Worker(int port) : connection(port) {}
    Connection connection;
    Lease lease;  // of the task that is being completed
    Time asked;
  };

  /// One task more, if there is still one to be done.
  void begin(Worker& worker) {
    if (begun_ >= tasks_) return;
    ++begun_;
    worker.lease = {};
    post(worker, "/tasks/claim", R"({"runner_id":"bench","lease_seconds":600})");
  }
  void post(Worker& worker, std::string_view path, std::string_view body) {
    ++busy_;
    worker.asked = now();
    std::string key;
    if (keys_) key = "Idempotency-Key: " + run_ + "-" + std::to_string(calls_++) + "\r\n";
    worker.connection.post(path, body, key);
  }
  void complete(Worker& worker) {
    std::string body = R"({"status":"done","lease_token":")" + worker.lease.token + '"';
    if (way_ == Way::kFused && begun_ < tasks_) {
      ++begun_;
      body += R"(,"claim_next":true)";
    }
    post(worker, "/tasks/" + worker.lease.task_id + "/complete", body + "}");
  }
  void go_on(Worker& worker, const Answer& answer) {
    --busy_;
    figures_.call(ms_between(worker.asked, now()));
    const bool claimed = !worker.lease;
    if (answer.status != 200) {
      if (!claimed || answer.status != 204) figures_.error(answer);
      return;
    }
    if (!claimed || way_ == Way::kClaimOnly) figures_.task();
    worker.lease = lease_in(answer, claimed ? "\"tasks\":" : "\"next\":{");
    if (worker.lease && way_ != Way::kClaimOnly) {
      complete(worker);
    } else if (way_ != Way::kFused || claimed) {
      begin(worker);
    }
  }

  const long tasks_;
  const Way way_;
  const bool keys_;
  const int epoll_;
  const std::string run_ = std::to_string(std::random_device{}());
  std::vector<std::unique_ptr<Worker>> workers_;
  Figures figures_;
  long begun_ = 0;
  long calls_ = 0;
  int busy_ = 0;
};

/// Until then the claim has certainly been parked: what is measured is the waking, not the race.
constexpr int kParkedMs = 3;

int pickup(int port, int count) {
  Connection worker(port);
  Connection submitter(port);
  Figures figures;
  std::vector<double> acknowledged_ms;
  const std::string spec = "pickup-" + std::to_string(std::random_device{}()) + "-";
  for (int i = 0; i < count; ++i) {
    worker.post("/tasks/claim", R"({"runner_id":"idle","wait_seconds":30,"lease_seconds":600})");
    ::poll(nullptr, 0, kParkedMs);
    const Time asked = now();
    submitter.post("/tasksets", R"({"spec_name":")" + spec + std::to_string(i) +
                                    R"(","tasks":[{"id":"1","title":"one"}]})");
    std::optional<Answer> submitted;
    std::optional<Answer> claimed;
    Time acknowledged;
    Time picked_up;
    while (!submitted || !claimed) {
      pollfd waiting[2] = {{submitter.fd(), POLLIN, 0}, {worker.fd(), POLLIN, 0}};
      ::poll(waiting, 2, -1);
      const Time at = now();
      if (waiting[0].revents != 0 && (submitted = submitter.receive())) acknowledged = at;
      if (waiting[1].revents != 0 && (claimed = worker.receive())) picked_up = at;
    }
    if (submitted->status != 201) figures.error(*submitted);
    const Lease lease = lease_in(*claimed, "\"tasks\":");
    if (!lease) figures.error(*claimed);
    figures.call(ms_between(asked, picked_up));
    acknowledged_ms.push_back(std::max(0.0, ms_between(acknowledged, picked_up)));
    worker.post("/tasks/" + lease.task_id + "/complete",
                R"({"status":"done","lease_token":")" + lease.token + "\"}");
    if (const Answer done = worker.await(); done.status != 200) figures.error(done);
    figures.task();
  }
  char more[64];
  std::snprintf(more, sizeof more, ",\"acknowledged_p99_ms\":%.4f",
                Figures::percentile(acknowledged_ms, 0.99));
  return figures.print(more);
}

int usage() {
  std::fputs(
      "usage: registry_load drain PORT CONNECTIONS TASKS separate|fused|claim [keys]\n"
      "       registry_load pickup PORT COUNT\n",
      stderr);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 3 && words[0] == "pickup") {
    return pickup(std::atoi(argv[2]), std::atoi(argv[3]));
  }
  if (words.size() < 5 || words.size() > 6 || words[0] != "drain") return usage();
  const bool keys = words.size() == 6;
  if (keys && words[5] != "keys") return usage();
  const std::vector<std::string> ways = {"separate", "fused", "claim"};
  const auto way = std::find(ways.begin(), ways.end(), words[4]);
  if (way == ways.end()) return usage();
  return Drain(std::atoi(argv[2]), std::atoi(argv[3]), std::atol(argv[4]),
               static_cast<Way>(way - ways.begin()), keys)
      .run();
}
