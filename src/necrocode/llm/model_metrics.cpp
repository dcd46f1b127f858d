#include "necrocode/llm/model_metrics.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::llm {
namespace {

constexpr std::size_t kModels = 100;  // a process asks for a few; a service may claim any

/// The name comes from the service.
std::string label(std::string_view model) {
  if (model.empty()) return "unknown";
  std::string name(model.substr(0, limits::kNameBytes));
  std::replace_if(
      name.begin(), name.end(),
      [](char c) {
        return !is_ascii_alnum(c) && std::string_view("-._:/@+").find(c) == std::string_view::npos;
      },
      '_');
  return name;
}

}  // namespace

/// The models that there are, and US dollars (a Counter counts whole things only) of those whose
/// price is known.
struct ModelMetrics::Sums {
  std::mutex mutex;
  std::map<std::string, std::optional<double>> usd;

  /// The model's label.
  std::string add(std::string_view model, const std::optional<double>& cost) {
    std::string name = label(model);
    const std::lock_guard lock(mutex);
    if (usd.size() >= kModels && !usd.contains(name)) name = "other";
    std::optional<double>& sum = usd[name];
    if (cost && std::isfinite(*cost) && *cost >= 0) sum = sum.value_or(0) + *cost;
    return name;
  }
};

ModelMetrics::ModelMetrics(metrics::Registry& registry)
    : calls_(registry), registry_(&registry), sums_(std::make_shared<Sums>()) {
  registry.counted("necrocode_llm_cost_usd_total",
                   "US dollars that answers took, of those whose price is known.", [sums = sums_] {
                     std::vector<metrics::Sample> samples;
                     const std::lock_guard lock(sums->mutex);
                     for (const auto& [model, usd] : sums->usd) {
                       if (usd) samples.push_back({{{"model", model}}, *usd});
                     }
                     return samples;
                   });
}

void ModelMetrics::operator()(const ModelCallReport& report) const {
  calls_(report);
  const std::string model = sums_->add(report.model, report.usage.cost_usd);
  const auto tokens = [&](const char* kind, std::int64_t count) {
    registry_
        ->counter("necrocode_llm_tokens_total",
                  "Tokens of answers; cached ones are of the prompt, reasoning of the completion.",
                  {{"model", model}, {"kind", kind}})
        .add(static_cast<std::uint64_t>(std::max<std::int64_t>(count, 0)));
  };
  tokens("prompt", report.usage.prompt_tokens);
  tokens("completion", report.usage.completion_tokens);
  tokens("cached", report.usage.cached_tokens);
  tokens("reasoning", report.usage.reasoning_tokens);
  registry_
      ->counter("necrocode_llm_maybe_billed_twice_total",
                "Calls of which an unanswered attempt may have been carried out too.",
                {{"model", model}})
      .add(report.maybe_billed_twice ? 1 : 0);
}

}  // namespace necrocode::llm
