#include "necrocode/llm/model_metrics.hpp"

#include <gmock/gmock.h>

#include <cmath>

namespace necrocode::llm {
namespace {

using testing::HasSubstr;
using testing::Not;

ModelCallReport report(const std::string& model, std::optional<double> usd = {}) {
  ModelCallReport report;
  report.service = "llm";
  report.operation = "chat";
  report.attempts = 2;
  report.model = model;
  report.usage.prompt_tokens = 100;
  report.usage.completion_tokens = 20;
  report.usage.cached_tokens = 60;
  report.usage.reasoning_tokens = 5;
  report.usage.cost_usd = usd;
  return report;
}

TEST(ModelMetrics, CallsThenTokensCostAndTheOrdinaryNumbers) {
  metrics::Registry registry;
  const ModelMetrics metrics(registry);
  const ModelMetrics copy = metrics;
  metrics(report("gpt-4o", 0.25));
  ModelCallReport twice = report("gpt-4o", 0.5);
  twice.maybe_billed_twice = true;
  copy(twice);
  const std::string text = registry.text();
  for (const char* line : {"necrocode_llm_tokens_total{model=\"gpt-4o\",kind=\"prompt\"} 200\n",
                           "necrocode_llm_tokens_total{model=\"gpt-4o\",kind=\"completion\"} 40\n",
                           "necrocode_llm_tokens_total{model=\"gpt-4o\",kind=\"cached\"} 120\n",
                           "necrocode_llm_tokens_total{model=\"gpt-4o\",kind=\"reasoning\"} 10\n",
                           "necrocode_llm_cost_usd_total{model=\"gpt-4o\"} 0.75\n",
                           "necrocode_llm_maybe_billed_twice_total{model=\"gpt-4o\"} 1\n",
                           "necrocode_client_attempts_total{service=\"llm\",operation=\"chat\"} 4"})
    EXPECT_THAT(text, HasSubstr(line));
}

TEST(ModelMetrics, PriceThatIsNotKnownThenNoCost) {
  metrics::Registry registry;
  const ModelMetrics metrics(registry);
  metrics(report("local"));
  metrics(report("local", std::nan("")));
  metrics(report("local", -1));
  EXPECT_THAT(registry.text(), Not(HasSubstr("necrocode_llm_cost_usd_total{")));
}

TEST(ModelMetrics, NamesFromTheServiceThenPlainAndBounded) {
  metrics::Registry registry;
  const ModelMetrics metrics(registry);
  metrics(report("a\n\"b\\\x1b[0m\xff"));
  metrics(report(""));
  metrics(report("openai/gpt-4o@2024:x_y+z"));
  metrics(report(std::string(5000, 'x')));
  const std::string text = registry.text();
  for (const std::string& model : {std::string("a__b___0m_"), std::string("unknown"),
                                   std::string("openai/gpt-4o@2024:x_y+z"), std::string(100, 'x')})
    EXPECT_THAT(text, HasSubstr("{model=\"" + model + "\",kind=\"prompt\"} 100\n"));
}

TEST(ModelMetrics, MoreModelsThanTheLimitThenTheOthersAreOne) {
  metrics::Registry registry;
  const ModelMetrics metrics(registry);
  for (int i = 0; i < 150; ++i) metrics(report("m" + std::to_string(i), 1));
  metrics(report("m0", 1));
  const std::string text = registry.text();
  EXPECT_THAT(text, HasSubstr("necrocode_llm_cost_usd_total{model=\"other\"} 50\n"));
  EXPECT_THAT(text, HasSubstr("necrocode_llm_cost_usd_total{model=\"m0\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("necrocode_llm_maybe_billed_twice_total{model=\"other\"} 0\n"));
}

TEST(ModelMetrics, NegativeCountsThenNone) {
  metrics::Registry registry;
  const ModelMetrics metrics(registry);
  ModelCallReport negative = report("m");
  negative.usage.prompt_tokens = -5;
  metrics(negative);
  EXPECT_THAT(registry.text(), HasSubstr("{model=\"m\",kind=\"prompt\"} 0\n"));
}

}  // namespace
}  // namespace necrocode::llm
