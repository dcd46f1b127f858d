// Claims by many threads at once: what each was told could have been told one after the other.
#include <random>
#include <thread>

#include "conformance/lease_history.hpp"
#include "conformance/task_store_suite.hpp"

namespace necrocode::registry {
namespace {

using Kind = LeaseOperation::Kind;
using Outcome = LeaseOperation::Outcome;

/// Operations at given times, for histories made by hand.
LeaseOperation at(int invoked, int responded, Kind kind, const std::string& token, Outcome outcome,
                  int attempt = 0) {
  const auto time = [](int step) { return LeaseOperation::Time(std::chrono::seconds(step)); };
  return {kind, "app:1", token, attempt, outcome, time(invoked), time(responded)};
}
LeaseOperation claim_at(int invoked, int responded, const std::string& token, int attempt) {
  return at(invoked, responded, Kind::kClaim, token, Outcome::kYes, attempt);
}

TEST(LeaseHistory, OneHolderAfterTheOtherIsRight) {
  EXPECT_EQ(lease_violation({claim_at(1, 2, "a", 1), at(3, 4, Kind::kHeartbeat, "a", Outcome::kYes),
                             at(3, 4, Kind::kClaim, "", Outcome::kNo),
                             at(5, 6, Kind::kHandBack, "a", Outcome::kYes),
                             at(5, 8, Kind::kHandBack, "a", Outcome::kNo), claim_at(7, 8, "b", 1),
                             at(9, 10, Kind::kComplete, "a", Outcome::kNo),
                             at(9, 10, Kind::kComplete, "b", Outcome::kYes),
                             at(11, 12, Kind::kComplete, "b", Outcome::kYes),  // told again
                             at(11, 12, Kind::kClaim, "", Outcome::kNo)}),
            "");
}

TEST(LeaseHistory, WhatOverlapsMayHaveComeInEitherOrder) {
  EXPECT_EQ(
      lease_violation({claim_at(1, 2, "a", 1), at(3, 9, Kind::kHandBack, "a", Outcome::kYes),
                       claim_at(4, 8, "b", 1), at(5, 6, Kind::kHeartbeat, "a", Outcome::kYes)}),
      "");
}

TEST(LeaseHistory, TwoHoldersAtOnceAreFound) {
  EXPECT_NE(lease_violation({claim_at(1, 2, "a", 1), claim_at(1, 2, "b", 1)}), "");
  EXPECT_NE(lease_violation({claim_at(1, 2, "a", 1), claim_at(3, 4, "b", 2)}), "");
  EXPECT_NE(lease_violation({claim_at(1, 2, "a", 1), claim_at(3, 4, "b", 1),
                             at(5, 6, Kind::kHandBack, "a", Outcome::kYes)}),
            "");
}

TEST(LeaseHistory, StaleTokenThatChangesSomethingIsFound) {
  const std::vector<LeaseOperation> second_holder = {claim_at(1, 2, "a", 1),
                                                     at(3, 4, Kind::kHandBack, "a", Outcome::kYes),
                                                     claim_at(5, 6, "b", 1)};
  for (const Kind kind : {Kind::kComplete, Kind::kHandBack, Kind::kHeartbeat}) {
    std::vector<LeaseOperation> history = second_holder;
    history.push_back(at(7, 8, kind, "a", Outcome::kYes));
    EXPECT_NE(lease_violation(history), "");
  }
}

TEST(LeaseHistory, ClaimOfADoneTaskWrongAttemptsAndLostTasksAreFound) {
  const LeaseOperation first = claim_at(1, 2, "a", 1);
  EXPECT_NE(lease_violation(
                {first, at(3, 4, Kind::kComplete, "a", Outcome::kYes), claim_at(5, 6, "b", 2)}),
            "");
  EXPECT_NE(lease_violation({claim_at(1, 2, "a", 2)}), "");
  EXPECT_NE(lease_violation({first, at(3, 4, Kind::kHandBack, "a", Outcome::kYes),
                             at(5, 6, Kind::kClaim, "", Outcome::kNo)}),
            "");
  EXPECT_NE(lease_violation({first, at(3, 4, Kind::kComplete, "a", Outcome::kNo)}), "");
}

TEST(LeaseHistory, OperationWithoutAnAnswerMayHaveHappenedOrNot) {
  const LeaseOperation first = claim_at(1, 2, "a", 1);
  const LeaseOperation lost = at(3, 0, Kind::kComplete, "a", Outcome::kUnknown);
  EXPECT_EQ(lease_violation({first, lost, at(4, 5, Kind::kHeartbeat, "a", Outcome::kYes),
                             at(6, 7, Kind::kHeartbeat, "a", Outcome::kNo)}),
            "");
  EXPECT_EQ(lease_violation({first, lost, at(4, 5, Kind::kHeartbeat, "a", Outcome::kYes)}), "");
  EXPECT_NE(lease_violation({first, lost, at(4, 5, Kind::kHeartbeat, "a", Outcome::kNo),
                             at(6, 7, Kind::kHeartbeat, "a", Outcome::kYes)}),
            "");
  EXPECT_EQ(lease_violation({at(1, 0, Kind::kClaim, "", Outcome::kUnknown),
                             at(2, 3, Kind::kClaim, "", Outcome::kNo)}),
            "");
}

/// One of several threads that fight for a few tasks, and what it was told.
class Rival {
 public:
  Rival(TaskStore& store, int tasks, unsigned seed) : store_(store), tasks_(tasks), random_(seed) {}

  void step() {
    LeaseOperation operation;
    operation.task = "app:" + std::to_string(random_() % static_cast<unsigned>(tasks_));
    const unsigned choice = random_() % 10;
    if (!held_.empty() && choice > 3) {
      // Sometimes one that it has given up already.
      const auto& [task, token] = held_[random_() % held_.size()];
      operation.task = task;
      operation.token = token;
      operation.kind = choice > 7   ? Kind::kHeartbeat
                       : choice > 4 ? Kind::kHandBack
                                    : Kind::kComplete;
    }
    operation.invoked = std::chrono::steady_clock::now();
    perform(operation);
    operation.responded = std::chrono::steady_clock::now();
    // As if the answer had been lost on its way.
    if (operation.kind != Kind::kClaim && random_() % 20 == 0)
      operation.outcome = Outcome::kUnknown;
    history.push_back(std::move(operation));
  }

  std::vector<LeaseOperation> history;

 private:
  void perform(LeaseOperation& operation) {
    if (operation.kind == Kind::kClaim) {
      ClaimRequest request;
      request.task_id = operation.task;
      const auto outcomes =
          store_.change([&](TaskChanges& changes) { return changes.claim({request}); });
      const std::vector<ClaimedTask>& claimed = outcomes.front().get();
      operation.outcome = claimed.empty() ? Outcome::kNo : Outcome::kYes;
      if (claimed.empty()) return;
      operation.token = claimed.front().lease_token.value;
      operation.attempt = claimed.front().task.attempt;
      held_.emplace_back(operation.task, operation.token);
      return;
    }
    const LeaseToken token{operation.token};
    if (operation.kind == Kind::kHeartbeat) {
      const HeartbeatResult result = store_.heartbeat({{operation.task, token}}).front();
      operation.outcome = result.answer ? Outcome::kYes : Outcome::kNo;
      return;
    }
    Completion completion;
    completion.lease_token = token;
    const bool done = operation.kind == Kind::kComplete;
    completion.status = done ? TaskState::kDone : TaskState::kReady;
    try {
      store_.change([&](TaskChanges& changes) {
        return changes.complete(operation.task, completion, {}, {});
      });
    } catch (const Conflict&) {
      operation.outcome = Outcome::kNo;
    }
  }

  TaskStore& store_;
  const int tasks_;
  std::mt19937 random_;
  std::vector<std::pair<std::string, std::string>> held_;  ///< task and token, also former ones
};

class ConcurrentClaims : public TaskStoreSuite {};
INSTANTIATE_TEST_SUITE_P(Stores, ConcurrentClaims, testing::ValuesIn(store_factories()),
                         name_of_factory);

TEST_P(ConcurrentClaims, AreLinearizable) {
  constexpr int kRivals = 6;
  constexpr int kSteps = 60;
  constexpr int kTasks = 6;
  std::vector<TaskSpec> tasks;
  for (int i = 0; i < kTasks; ++i) tasks.push_back(task_spec(std::to_string(i)));
  submit(submission("app", tasks));
  std::vector<Rival> rivals;
  for (unsigned seed = 1; seed <= kRivals; ++seed) rivals.emplace_back(*store, kTasks, seed);
  std::vector<std::thread> threads;
  for (Rival& rival : rivals) {
    threads.emplace_back([&rival] {
      for (int step = 0; step < kSteps; ++step) rival.step();
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<LeaseOperation> history;
  int claims = 0;
  for (const Rival& rival : rivals) {
    for (const LeaseOperation& operation : rival.history) {
      claims += operation.kind == Kind::kClaim && operation.outcome == Outcome::kYes ? 1 : 0;
      history.push_back(operation);
    }
  }
  EXPECT_EQ(lease_violation(history), "");
  EXPECT_GT(claims, kTasks);  // or it was no fight
}

}  // namespace
}  // namespace necrocode::registry
