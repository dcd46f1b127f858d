// Turns: at most N of something at once; the rest wait in the order in which they came. With it,
// what bounds the runs of one process together: the test commands that run side by side, and the
// model calls in flight, however many runs there are.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <utility>

#include "necrocode/base/call_context.hpp"
#include "necrocode/process/sandbox.hpp"
#include "necrocode/runner/executor.hpp"

namespace necrocode::runner {

/// Thread-safe.
class Turns {
 public:
  /// `most` 0: no bound.
  explicit Turns(int most) : most_(most) {}

  /// A turn, until it is destroyed.
  class Turn {
   public:
    explicit Turn(Turns* turns) : turns_(turns) {}
    Turn(Turn&& other) noexcept : turns_(std::exchange(other.turns_, nullptr)) {}
    Turn& operator=(Turn&&) = delete;
    ~Turn() {
      if (turns_) turns_->give_back();
    }

   private:
    Turns* turns_;
  };
  /// Waits for it. Throws TimeoutError when the context ends first.
  [[nodiscard]] Turn take(const CallContext& context);
  int taken() const;
  int waiting() const;

 private:
  void give_back();
  const int most_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  int taken_ = 0;                 // guarded by mutex_
  std::uint64_t next_ = 0;        // guarded by mutex_
  std::set<std::uint64_t> line_;  // those who wait, oldest first; guarded by mutex_
};

/// Runs commands in `sandbox`, a bounded number at once. Waiting is no time of the command's.
class BoundedSandbox final : public process::Sandbox {
 public:
  BoundedSandbox(process::Sandbox& sandbox, int most) : sandbox_(sandbox), turns_(most) {}
  process::CommandResult run(const process::SandboxedCommand& command, const CallContext& context,
                             const process::OutputSink& sink) override {
    const Turns::Turn turn = turns_.take(context);
    return sandbox_.run(command, context, sink);
  }
  void require_usable() override { sandbox_.require_usable(); }
  std::string_view name() const override { return sandbox_.name(); }
  std::string limits() const override { return sandbox_.limits(); }
  std::vector<std::string> missing() const override { return sandbox_.missing(); }
  bool can_cover() const override { return sandbox_.can_cover(); }
  process::Gate make_gate() override { return sandbox_.make_gate(); }

 private:
  process::Sandbox& sandbox_;
  Turns turns_;
};

/// Asks `executor` when it has one of `turns`, which live longer.
class BoundedExecutor final : public TaskExecutor {
 public:
  BoundedExecutor(std::unique_ptr<TaskExecutor> executor, Turns& turns)
      : executor_(std::move(executor)), turns_(turns) {}
  std::string prompt(const Assignment& assignment) const override {
    return executor_->prompt(assignment);
  }
  Implementation implement(const Assignment& assignment, const CallContext& context,
                           llm::Spending& spending, Transcript& transcript) override {
    const Turns::Turn turn = turns_.take(context);
    return executor_->implement(assignment, context, spending, transcript);
  }

 private:
  std::unique_ptr<TaskExecutor> executor_;
  Turns& turns_;
};

}  // namespace necrocode::runner
