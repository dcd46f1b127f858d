// What a process's model calls took, as metrics.
#pragma once

#include <memory>
#include <string>

#include "necrocode/llm/model.hpp"
#include "necrocode/net/client_metrics.hpp"
#include "necrocode/net/service_caller.hpp"
#include "necrocode/observe/metrics.hpp"

namespace necrocode::llm {

/// One finished model call, with what net/ tells of every call.
struct ModelCallReport : net::CallReport {
  std::string model;  ///< that answered; of a failed call the one that was asked
  Usage usage;        ///< empty when nothing is known to have been spent
  bool maybe_billed_twice = false;
};

/// Make one for a registry, which lives longer; copies share their numbers. Thread-safe.
class ModelMetrics {
 public:
  /// What net::ClientMetrics counts, and
  /// necrocode_llm_tokens_total{model,kind} (prompt, completion; cached and reasoning are parts of
  /// these), necrocode_llm_cost_usd_total{model} (of answers whose price is known),
  /// necrocode_llm_maybe_billed_twice_total{model}. A model's name is shown with at most 100 bytes,
  /// what is unusual in one as "_"; beyond 100 models the label is "other".
  explicit ModelMetrics(metrics::Registry& registry);
  void operator()(const ModelCallReport& report) const;

 private:
  struct Sums;
  net::ClientMetrics calls_;
  metrics::Registry* registry_;
  std::shared_ptr<Sums> sums_;
};

}  // namespace necrocode::llm
