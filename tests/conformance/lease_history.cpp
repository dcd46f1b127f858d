#include "conformance/lease_history.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace necrocode::registry {
namespace {

using Kind = LeaseOperation::Kind;
using Outcome = LeaseOperation::Outcome;

/// A task's lease, one operation after the other.
struct Lease {
  std::string holder;  ///< token; empty: none
  bool held = false;
  bool done = false;
  std::string finisher;
  int attempts = 0;
  friend auto operator<=>(const Lease&, const Lease&) = default;
};

bool holds(const Lease& lease, const std::string& token) {
  return lease.held && lease.holder == token;
}

/// The lease after `operation` has had effect; nothing where that could not be.
std::optional<Lease> with_effect(Lease lease, const LeaseOperation& operation) {
  const bool known = operation.outcome != Outcome::kUnknown;
  switch (operation.kind) {
    case Kind::kClaim:
      if (lease.held || lease.done) return std::nullopt;
      if (known && operation.attempt != lease.attempts + 1) return std::nullopt;
      lease.held = true;
      lease.holder = operation.token;  // empty of an unknown one: nobody else's
      ++lease.attempts;
      return lease;
    case Kind::kComplete:
      if (lease.done && lease.finisher == operation.token) return lease;  // told again
      if (!holds(lease, operation.token)) return std::nullopt;
      lease.held = false;
      lease.done = true;
      lease.finisher = operation.token;
      return lease;
    case Kind::kHandBack:
      if (!holds(lease, operation.token)) return std::nullopt;
      lease.held = false;
      --lease.attempts;
      return lease;
    case Kind::kHeartbeat:
      if (!holds(lease, operation.token)) return std::nullopt;
      return lease;
  }
  return std::nullopt;
}

/// True when "nothing there" or "refused" is the right answer.
bool may_refuse(const Lease& lease, const LeaseOperation& operation) {
  LeaseOperation successful = operation;
  successful.outcome = Outcome::kYes;
  if (operation.kind == Kind::kClaim) return lease.held || lease.done;
  return !with_effect(lease, successful);
}

class Search {
 public:
  explicit Search(std::vector<LeaseOperation> operations)
      : operations_(std::move(operations)), placed_(operations_.size(), false) {}

  bool finds_an_order() { return continue_from({}); }

 private:
  bool continue_from(const Lease& lease) {
    if (!seen_.insert({placed_, lease}).second) return false;  // tried, in vain
    bool all = true;
    auto horizon = LeaseOperation::Time::max();
    for (std::size_t i = 0; i < operations_.size(); ++i) {
      if (placed_[i] || operations_[i].outcome == Outcome::kUnknown) continue;
      all = false;
      horizon = std::min(horizon, operations_[i].responded);
    }
    if (all) return true;  // those without an answer have not happened
    for (std::size_t i = 0; i < operations_.size(); ++i) {
      // The next one must have begun before any other had ended.
      if (placed_[i] || operations_[i].invoked > horizon) continue;
      const bool refused = operations_[i].outcome == Outcome::kNo;
      if (refused && !may_refuse(lease, operations_[i])) continue;
      const std::optional<Lease> after =
          refused ? std::optional(lease) : with_effect(lease, operations_[i]);
      if (!after) continue;
      placed_[i] = true;
      if (continue_from(*after)) return true;
      placed_[i] = false;
    }
    return false;
  }

  std::vector<LeaseOperation> operations_;
  std::vector<bool> placed_;
  std::set<std::pair<std::vector<bool>, Lease>> seen_;
};

}  // namespace

std::string lease_violation(const std::vector<LeaseOperation>& history) {
  std::map<std::string, std::vector<LeaseOperation>> by_task;
  for (const LeaseOperation& operation : history) by_task[operation.task].push_back(operation);
  for (auto& [task, operations] : by_task) {
    // In the order of their answers the search goes astray least.
    std::sort(operations.begin(), operations.end(),
              [](const auto& a, const auto& b) { return a.responded < b.responded; });
    const std::size_t count = operations.size();
    if (Search(std::move(operations)).finds_an_order()) continue;
    return "no order of the " + std::to_string(count) + " operations on " + task +
           " has these answers";
  }
  return {};
}

}  // namespace necrocode::registry
