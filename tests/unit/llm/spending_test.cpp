#include "necrocode/llm/spending.hpp"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <thread>
#include <vector>

namespace necrocode::llm {
namespace {

using testing::HasSubstr;

Usage took(std::int64_t prompt, std::int64_t completion, std::optional<double> usd = {}) {
  Usage usage;
  usage.prompt_tokens = prompt;
  usage.completion_tokens = completion;
  usage.total_tokens = prompt + completion;
  usage.cost_usd = usd;
  return usage;
}

/// Why no further call may be made; empty when one may.
std::string refusal(const Spending& spending) {
  try {
    spending.require_left();
    return {};
  } catch (const RateLimited& error) {  // SpendCapReached is one
    EXPECT_TRUE(dynamic_cast<const SpendCapReached*>(&error));
    EXPECT_EQ(error.info().end, CallEnd::kPermanent);
    EXPECT_EQ(error.info().service, "llm");
    EXPECT_FALSE(error.info().retry_at);
    return error.what();
  }
}

TEST(Spending, NoCapThenItNeverStops) {
  Spending spending;
  spending.add(took(1'000'000'000, 1'000'000'000));
  spending.add(took(1, 1, 1e9));
  EXPECT_EQ(refusal(spending), "");
}

TEST(Spending, CapOfTokensThenStoppedBeforeTheNextCall) {
  Spending spending({{}, 100});
  EXPECT_EQ(refusal(spending), "");
  spending.add(took(60, 39));
  EXPECT_EQ(refusal(spending), "");
  spending.add(took(50, 0));
  EXPECT_THAT(refusal(spending), HasSubstr("149 of 100 tokens spent"));
}

TEST(Spending, CapInDollarsThenStoppedBeforeTheNextCall) {
  Spending spending({0.5, 0});
  EXPECT_EQ(refusal(spending), "");
  spending.add(took(10, 10, 0.25));
  EXPECT_EQ(refusal(spending), "");
  spending.add(took(10, 10, 0.25));
  EXPECT_THAT(refusal(spending), HasSubstr("$0.5000 of $0.5000 spent"));
}

TEST(Spending, CapOfNothingThenNoCallAtAll) {
  EXPECT_THAT(refusal(Spending({0.0, 0})), HasSubstr("$0.0000 of $0.0000"));
}

TEST(Spending, PriceThatIsNotKnownThenACapInDollarsCannotBeKept) {
  Spending spending({100.0, 0});
  spending.add(took(10, 10, 0.25));
  spending.add(Usage());  // an answer that took nothing is none of unknown price
  EXPECT_EQ(refusal(spending), "");
  spending.add(took(10, 10));
  spending.add(took(10, 10, 0.25));
  EXPECT_THAT(refusal(spending), HasSubstr("the price of a model is not known"));
  EXPECT_THAT(refusal(spending), HasSubstr("(prices)"));
  Spending tokens_only({{}, 1000});
  tokens_only.add(took(10, 10));
  EXPECT_EQ(refusal(tokens_only), "");
}

TEST(Spending, ImpossibleClaimsThenBounded) {
  Spending spending({{}, 1000});
  spending.add(took(-5'000, -5'000));
  EXPECT_EQ(spending.usage().prompt_tokens, 0);
  for (int i = 0; i < 100; ++i) {
    Usage usage = took(INT64_MAX, 0);
    usage.total_tokens = INT64_MAX;
    spending.add(usage);
  }
  EXPECT_EQ(spending.usage().prompt_tokens, 100'000'000'000'000);
  for (const double cost : {-1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    Spending dollars({1.0, 0});
    dollars.add(took(1, 1, cost));
    EXPECT_THAT(refusal(dollars), HasSubstr("is not known")) << cost;
  }
}

TEST(Spending, LimitsThatAreNoneThenAConfigurationError) {
  for (const double usd : {-0.01, std::nan(""), std::numeric_limits<double>::infinity()})
    EXPECT_THROW(Spending({usd, 0}), ConfigError) << usd;
  EXPECT_THROW(Spending({{}, -1}), ConfigError);
}

TEST(Spending, ManyThreadsThenNothingIsLost) {
  Spending spending;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 1000; ++n) spending.add(took(2, 1, 0.5));
    });
  }
  threads.clear();
  EXPECT_EQ(spending.usage().prompt_tokens, 16'000);
  EXPECT_EQ(spending.usage().cost_usd, 4'000.0);
}

}  // namespace
}  // namespace necrocode::llm
