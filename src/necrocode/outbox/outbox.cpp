#include "necrocode/outbox/outbox.hpp"

#include <fcntl.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "necrocode/base/time_format.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/outbox/outbox_file.hpp"

namespace necrocode::outbox {
namespace {

using std::chrono::milliseconds;
namespace fs = std::filesystem;

constexpr const char* kSetAsideFile = "set-aside.jsonl";

enum class Verdict { kDone, kRefused, kLater, kNoAnswer };

/// What an error says about the call: whether it, or anything to that service, is worth another
/// try.
Verdict judge(const RunnerError& error) {
  const int status = error.info().status;
  // Without these a call cannot be told from a good one: its credentials may be mended.
  const bool may_change =
      status == 401 || status == 403 || status == 408 || status == 425 || status == 429;
  if (status >= 400 && status < 500 && !may_change) return Verdict::kRefused;
  return status == 0 ? Verdict::kNoAnswer : Verdict::kLater;
}

net::ServiceCall to_service_call(const KeptCall& kept) {
  net::ServiceCall call;
  call.operation = kept.operation;
  call.target = kept.target;
  call.method = kept.method;
  call.path = kept.path;
  call.raw_body = kept.body;
  if (!kept.body.empty()) call.headers.set("Content-Type", "application/json");
  call.idempotency_key = kept.idempotency_key;
  return call;
}

}  // namespace

struct Outbox::State {
  State(fs::path where, OutboxOptions set, const Clock& time)
      : folder(std::move(where)), options(set), clock(time), file(folder) {}

  /// The calls to one service, by their ids in the file; the texts stay on disk.
  struct Queue {
    struct Waiting {
      std::string target;
      std::size_t bytes = 0;
      SystemTime kept_at;
    };
    bool holds(const std::string& target) const {
      return std::any_of(calls.begin(), calls.end(),
                         [&](const auto& call) { return call.second.target == target; });
    }
    std::map<std::int64_t, Waiting> calls;  // in the order of keeping
    std::shared_ptr<const net::ServiceCaller> caller;
    SteadyTime due{};    // not before that
    bool hurry = false;  // somebody waits, since the pass under way began
    milliseconds pause{0};
  };

  const fs::path folder;
  const OutboxOptions options;
  const Clock& clock;

  mutable std::mutex mutex;  // guards all below
  std::condition_variable_any changed;
  OutboxFile file;
  std::map<std::string, Queue> queues;  // by base URL
  std::size_t count = 0;
  std::size_t bytes = 0;
  std::size_t set_aside = 0;
  std::minstd_rand random{std::random_device{}()};
  std::jthread thread;  // last: ends before what it uses

  void add(const KeptCall& call);
  void forget(Queue& queue, std::int64_t id);
  void work(const std::stop_token& stop);
  Queue* next_due(std::optional<SteadyTime>& due);
  void deliver_queue(std::unique_lock<std::mutex>& lock, Queue& queue, const std::stop_token& stop);
  Verdict deliver(const net::ServiceCaller& caller, const KeptCall& call,
                  const std::stop_token& stop);
  bool put_aside(const KeptCall& call, const RunnerError& refusal);
  void pause(Queue& queue);
};

Outbox::Outbox(fs::path folder, OutboxOptions options, const Clock& clock)
    : state_(std::make_unique<State>(std::move(folder), options, clock)) {
  for (const KeptCall& call : state_->file.adopt()) state_->add(call);
  if (state_->count > 0) {
    log::info("calls kept by an ended process are delivered now", {{"calls", state_->count}});
  }
  state_->thread =
      std::jthread([state = state_.get()](const std::stop_token& stop) { state->work(stop); });
}

Outbox::~Outbox() {
  state_->thread.request_stop();
  state_->thread.join();
  if (state_->count == 0) return;
  log::warn("calls are still kept; the next necrocode process on this folder delivers them",
            {{"calls", state_->count}, {"folder", state_->folder.string()}});
}

void Outbox::deliver_through(std::shared_ptr<const net::ServiceCaller> caller) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->queues[caller->base_url()].caller = caller;
  }
  state_->changed.notify_all();
}

void Outbox::keep(const std::string& service, const std::string& base_url,
                  const net::ServiceCall& call) {
  KeptCall kept;
  kept.service = service;
  kept.base_url = base_url;
  kept.operation = call.operation;
  kept.target = call.target;
  kept.method = call.method;
  kept.path = call.path;
  if (!call.body.is_null()) kept.body = call.body.dump();
  kept.idempotency_key = call.idempotency_key;
  kept.kept_at = state_->clock.system_now();
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->count >= state_->options.calls_max ||
        state_->bytes + kept.bytes() > state_->options.bytes_max) {
      log::error("the outbox is full: a call is lost",
                 {{"service", service}, {"operation", call.operation}, {"target", call.target}});
      throw ResourceLimitError("the outbox is full: " + std::to_string(state_->count) +
                               " calls wait for their services");
    }
    kept.id = state_->file.add(kept);
    state_->add(kept);
  }
  log::warn("a call is kept until its service is back",
            {{"service", service}, {"operation", call.operation}, {"target", call.target}});
  state_->changed.notify_all();
}

bool Outbox::holds(const std::string& base_url, const std::string& target) const {
  const std::lock_guard lock(state_->mutex);
  const auto queue = state_->queues.find(base_url);
  return queue != state_->queues.end() && queue->second.holds(target);
}

bool Outbox::settle(const std::string& base_url, const std::string& target,
                    const CallContext& context) {
  std::unique_lock lock(state_->mutex);
  State::Queue& queue = state_->queues[base_url];  // keeps its place
  queue.due = {};
  queue.hurry = true;
  state_->changed.notify_all();
  // A deadline of "never" would overflow in the clock's arithmetic.
  const auto wait = std::min<std::chrono::nanoseconds>(context.remaining(), std::chrono::hours(24));
  return state_->changed.wait_for(lock, context.stop, wait, [&] { return !queue.holds(target); });
}

OutboxStatus Outbox::status() const {
  const std::lock_guard lock(state_->mutex);
  OutboxStatus status{state_->count, state_->bytes, state_->set_aside, std::nullopt};
  for (const auto& [url, queue] : state_->queues) {
    if (queue.calls.empty()) continue;
    const SystemTime first = queue.calls.begin()->second.kept_at;
    status.oldest = std::min(status.oldest.value_or(first), first);
  }
  return status;
}

void Outbox::State::add(const KeptCall& call) {
  Queue& queue = queues[call.base_url];
  const auto [place, fresh] =
      queue.calls.try_emplace(call.id, Queue::Waiting{call.target, call.bytes(), call.kept_at});
  if (!fresh) return;
  ++count;
  bytes += call.bytes();
}

void Outbox::State::forget(Queue& queue, std::int64_t id) {
  const auto found = queue.calls.find(id);
  if (found == queue.calls.end()) return;
  --count;
  bytes -= found->second.bytes;
  queue.calls.erase(found);
}

/// A queue that can be delivered now, or when the next one can.
Outbox::State::Queue* Outbox::State::next_due(std::optional<SteadyTime>& due) {
  const SteadyTime now = clock.steady_now();
  for (auto& [url, queue] : queues) {
    if (queue.calls.empty() || !queue.caller) continue;
    if (queue.due <= now) return &queue;
    due = std::min(due.value_or(queue.due), queue.due);
  }
  return nullptr;
}

void Outbox::State::work(const std::stop_token& stop) {
  std::unique_lock lock(mutex);
  while (!stop.stop_requested()) {
    std::optional<SteadyTime> due;
    if (Queue* const queue = next_due(due)) {
      deliver_queue(lock, *queue, stop);
      continue;
    }
    const auto news = [&] {
      std::optional<SteadyTime> ignored;
      return next_due(ignored) != nullptr;
    };
    if (due) {
      changed.wait_until(lock, stop, *due, news);
    } else {
      changed.wait(lock, stop, news);
    }
  }
}

/// Once through the queue; sets when to go through it again.
void Outbox::State::deliver_queue(std::unique_lock<std::mutex>& lock, Queue& queue,
                                  const std::stop_token& stop) {
  const auto caller = queue.caller;
  queue.hurry = false;
  std::set<std::string> held_back;  // targets whose turn is not over
  bool no_answer = false;
  std::vector<std::pair<std::int64_t, std::string>> turns;
  for (const auto& [id, waiting] : queue.calls) turns.emplace_back(id, waiting.target);
  for (const auto& [id, target] : turns) {
    if (stop.stop_requested() || no_answer) break;
    if (held_back.contains(target)) continue;
    try {
      const auto call = file.load(id);
      if (!call) continue;
      lock.unlock();
      const Verdict verdict = deliver(*caller, *call, stop);
      lock.lock();
      if (verdict == Verdict::kDone || verdict == Verdict::kRefused) {
        file.remove(id);
        forget(queue, id);
        queue.pause = milliseconds{0};
        changed.notify_all();
        continue;
      }
      held_back.insert(target);
      no_answer = verdict == Verdict::kNoAnswer;
    } catch (const std::exception& error) {
      if (!lock.owns_lock()) lock.lock();
      log::error("a kept call cannot be delivered", {{"error", error.what()}});
      break;
    }
  }
  if (queue.calls.empty()) return;
  pause(queue);
  if (queue.hurry) queue.due = {};
}

void Outbox::State::pause(Queue& queue) {
  queue.pause = std::clamp(2 * queue.pause, options.pause_min, options.pause_max);
  queue.due = clock.steady_now() + milliseconds(static_cast<std::int64_t>(
                                       std::uniform_real_distribution<double>(0.5, 1.0)(random) *
                                       static_cast<double>(queue.pause.count())));
}

Verdict Outbox::State::deliver(const net::ServiceCaller& caller, const KeptCall& call,
                               const std::stop_token& stop) {
  CallContext context;
  context.stop = stop;
  try {
    caller.call(to_service_call(call), context);
    log::info("a kept call is delivered",
              {{"service", call.service}, {"operation", call.operation}, {"target", call.target}});
    return Verdict::kDone;
  } catch (const RunnerError& error) {
    const Verdict verdict = judge(error);
    if (verdict != Verdict::kRefused) return verdict;
    return put_aside(call, error) ? verdict : Verdict::kLater;
  }
}

/// On disk before the call is forgotten; false when it cannot be written.
bool Outbox::State::put_aside(const KeptCall& call, const RunnerError& refusal) try {
  log::error("a kept call was refused and is set aside", {{"service", call.service},
                                                          {"operation", call.operation},
                                                          {"target", call.target},
                                                          {"error", refusal.what()}});
  Json body = Json::try_parse(call.body).value_or(Json());
  if (body.is_object()) body.erase("lease_token");  // of no use any more, to its owner at least
  const Json line = Json::object({{"time", to_rfc3339(clock.system_now())},
                                  {"kept_at", to_rfc3339(call.kept_at)},
                                  {"service", call.service},
                                  {"url", call.base_url},
                                  {"operation", call.operation},
                                  {"target", call.target},
                                  {"method", call.method},
                                  {"path", call.path},
                                  {"body", std::move(body)},
                                  {"idempotency_key", call.idempotency_key},
                                  {"error", refusal.what()}});
  const fs::path path = folder / kSetAsideFile;
  std::error_code absent;
  if (fs::file_size(path, absent) > limits::kOutboxSetAsideBytes && !absent) {
    std::error_code error;
    fs::rename(path, path.string() + ".old", error);
    if (error) throw StorageError("cannot rename " + path.string() + ": " + error.message());
  }
  const FileDescriptor out(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!out) throw_errno("cannot open", path.string());
  write_all(out.get(), line.dump() + "\n");
  if (::fdatasync(out.get()) != 0) throw_errno("cannot sync", path.string());
  const std::lock_guard lock(mutex);
  ++set_aside;
  return true;
} catch (const StorageError& error) {
  log::error("a refused call cannot be set aside", {{"error", error.what()}});
  return false;
}

}  // namespace necrocode::outbox
