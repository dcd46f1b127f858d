#include "necrocode/runner/worker.hpp"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/runner/artifact_uploader.hpp"
#include "necrocode/runner/run_folder.hpp"
#include "necrocode/runner/run_log.hpp"

namespace necrocode::runner {
namespace {

using namespace std::chrono_literals;

constexpr auto kRetryAfterError = 2s;  // beyond the client's own retries
constexpr auto kMemoryPause = 1s;
constexpr auto kDeliverEvery = 30s;
constexpr auto kDeliverTime = 5min;

// What new work could use without swapping (proc(5), MemAvailable); nothing where it is not told.
std::optional<std::uint64_t> available_memory_bytes() {
  constexpr std::string_view kName = "MemAvailable:";
  std::string text;
  try {
    text = read_file("/proc/meminfo", limits::kMiB);
  } catch (const StorageError&) {
    return std::nullopt;
  }
  for (std::string_view line : split(text, '\n')) {
    if (!line.starts_with(kName) || !line.ends_with(" kB")) continue;
    line.remove_prefix(kName.size());
    line.remove_suffix(3);
    const auto kib = parse_uint(trim(line));
    return kib ? std::optional(*kib * limits::kKiB) : std::nullopt;
  }
  return std::nullopt;
}

bool all_stored(const RunResult& result) {
  for (const UploadedArtifact& artifact : result.artifacts) {
    if (!artifact.stored) return false;
  }
  return !result.artifacts.empty();
}

}  // namespace

void give_up(TaskRegistryClient& registry, const registry::ClaimedTask& claim,
             registry::TaskState state, const std::string& reason) {
  registry::Completion completion;
  completion.lease_token = claim.lease_token;
  completion.status = state;
  if (state == registry::TaskState::kFailed)
    completion.failure = registry::Failure{"agent", reason, {}};
  try {
    registry.complete(claim.task.id, completion, CallContext().within(10s));
  } catch (const RunnerError& error) {
    log::error("cannot end a claimed task; its lease will expire",
               {{"task", claim.task.id}, {"reason", reason}, {"error", error.what()}});
  }
}

void Worker::work_on(const registry::ClaimedTask& claim, const std::string& runner_id,
                     const std::stop_token& now) {
  std::optional<TaskContext> task;
  try {
    task.emplace(read_task_context(claim.task.to_json(), options_.defaults));
  } catch (const RunnerError& error) {
    ++failed_;
    log::error("a claimed task is not valid", {{"task", claim.task.id}, {"error", error.what()}});
    give_up(*services_.registry, claim, registry::TaskState::kFailed, error.what());
    if (options_.on_result)
      options_.on_result(failed_before_start(runner_id, claim.task.id, error));
    return;
  }
  task->base_commits = claim.task.base_commits;
  RunOptions run = options_.run;
  run.runner_id = runner_id;
  run.data_dir = options_.data_dir;
  run.disposable = true;
  run.run_dir = options_.data_dir / "runs" /
                (std::string(task->task_id.spec()) + "-" + std::string(task->task_id.number()) +
                 "-" + random_hex(4));
  CallContext context;
  context.stop = now;
  const RunResult result = RunnerOrchestrator(services_, run).run(*task, &claim, context);
  if (result.success()) {
    ++done_;
  } else if (result.exit_code == ExitCode::kCancelled) {
    // Only the end of the worker hands a task back; else its lease or the task itself was ended.
    ++(now.stop_requested() ? handed_back_ : cancelled_);
  } else {
    ++failed_;
  }
  if (options_.on_result) options_.on_result(result);
  // Not even begun: what keeps it from that will hardly be gone at once.
  if (result.failure && result.failure->phase == Phase::kValidate) {
    real_clock().sleep_for(kRetryAfterError, now);
  }
  // What the store has need not be kept twice.
  if (all_stored(result)) {
    remove_tree(run.run_dir);
    forget_owed(options_.data_dir / "owed", run.run_dir);
  }
}

// False when it is time to stop.
bool Worker::wait_for_memory(const std::stop_token& stop) const {
  bool told = false;
  while (!stop.stop_requested()) {
    const auto available = available_memory_bytes();
    if (!available || *available >= options_.min_free_memory_bytes) return true;
    if (!std::exchange(told, true)) {
      log::warn("no task is claimed while the machine is short of memory",
                {{"available_mb", *available / limits::kMiB},
                 {"min_free_memory_mb", options_.min_free_memory_bytes / limits::kMiB}});
    }
    real_clock().sleep_for(kMemoryPause, stop);
  }
  return false;
}

void Worker::runner_loop(const std::string& runner_id, const std::stop_token& no_more,
                         const std::stop_token& now) {
  registry::ClaimRequest request;
  request.runner_id = RunnerId{runner_id};
  request.skills = options_.skills;
  request.lease = options_.lease;
  request.provider = options_.run.provider;
  request.wait = options_.claim_wait;
  CallContext context;
  context.stop = no_more;
  while (wait_for_memory(no_more)) {
    try {
      for (const registry::ClaimedTask& claim : services_.registry->claim(request, context)) {
        if (no_more.stop_requested()) {
          ++handed_back_;
          give_up(*services_.registry, claim, registry::TaskState::kReady,
                  "the worker is stopping");
        } else {
          work_on(claim, runner_id, now);
        }
      }
    } catch (const std::exception& error) {
      if (no_more.stop_requested()) return;
      log::error("runner cannot work, trying again",
                 {{"runner", runner_id}, {"error", error.what()}});
      real_clock().sleep_for(kRetryAfterError, no_more);
    }
  }
}

void Worker::deliver_loop(const std::stop_token& stop) {
  do {
    CallContext context;
    context.stop = stop;
    deliver_owed(options_.data_dir / "owed", *services_.artifacts, services_.registry,
                 context.within(kDeliverTime));
  } while (real_clock().sleep_for(kDeliverEvery, stop));
}

WorkerSummary Worker::run(const CallContext& context) {
  const std::filesystem::path runs = options_.data_dir / "runs";
  std::filesystem::create_directories(runs);
  for (const auto& run : std::filesystem::directory_iterator(runs)) {
    if (!is_being_written(run.path() / "run.log")) remove_leftovers(run.path());
  }
  std::stop_source now;
  std::mutex mutex;
  std::condition_variable_any changed;
  int running = options_.max_parallel;
  std::jthread deliveries;
  if (services_.artifacts) {
    deliveries = std::jthread([this](const std::stop_token& stop) { deliver_loop(stop); });
  }
  std::vector<std::jthread> runners;
  for (int i = 0; i < options_.max_parallel; ++i) {
    runners.emplace_back([&, id = "runner-" + random_hex(4)] {
      if (options_.on_thread) options_.on_thread();
      runner_loop(id, context.stop, now.get_token());
      const std::lock_guard lock(mutex);
      --running;
      changed.notify_all();
    });
  }
  std::unique_lock lock(mutex);
  changed.wait(lock, context.stop, [&] { return running == 0; });
  if (!changed.wait_for(lock, options_.drain, [&] { return running == 0; })) {
    log::warn("the time to drain is over, handing runs back");
    now.request_stop();
    changed.wait(lock, [&] { return running == 0; });
  }
  return {done_, failed_, cancelled_, handed_back_};
}

}  // namespace necrocode::runner
