#include "necrocode/llm/spending.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>

#include "necrocode/llm/completion.hpp"

namespace necrocode::llm {
namespace {

std::string dollars(double usd) {
  char text[400];  // any finite double
  std::snprintf(text, sizeof text, "$%.4f", usd);
  return text;
}

[[noreturn]] void refuse(const char* why, std::string detail) {
  ErrorInfo info;
  info.service = "llm";
  info.end = CallEnd::kPermanent;
  info.detail = std::move(detail);
  throw SpendCapReached(why, std::move(info));
}

}  // namespace

Spending::Spending(SpendingLimits limits) : limits_(limits) {
  const bool usd_ok = !limits.usd || (std::isfinite(*limits.usd) && *limits.usd >= 0);
  if (!usd_ok || limits.tokens < 0) throw ConfigError("a run's spend cap must be a number from 0");
}

void Spending::require_left() const {
  const Usage spent = usage();
  const std::int64_t tokens = spent.prompt_tokens + spent.completion_tokens;
  if (limits_.tokens > 0 && tokens >= limits_.tokens) {
    refuse("the run's cap of tokens is reached",
           std::to_string(tokens) + " of " + std::to_string(limits_.tokens) + " tokens spent");
  }
  if (!limits_.usd) return;
  if (!spent.cost_usd && !spent.empty()) {
    refuse("the run's cap in US dollars cannot be kept: the price of a model is not known",
           "a cap of " + dollars(*limits_.usd) + ", and " + std::to_string(tokens) +
               " tokens spent; name the model's price in the configuration (prices)");
  }
  const double usd = spent.cost_usd.value_or(0);
  if (usd >= *limits_.usd) {
    refuse("the run's cap in US dollars is reached",
           dollars(usd) + " of " + dollars(*limits_.usd) + " spent");
  }
}

void Spending::add(const Usage& usage) {
  Usage sane = usage;
  for (std::int64_t* count :
       {&sane.prompt_tokens, &sane.completion_tokens, &sane.total_tokens, &sane.cached_tokens,
        &sane.cache_write_tokens, &sane.reasoning_tokens}) {
    *count = std::clamp<std::int64_t>(*count, 0, kTokensMax);
  }
  if (sane.cost_usd && !(std::isfinite(*sane.cost_usd) && *sane.cost_usd >= 0)) {
    sane.cost_usd.reset();
  }
  const std::lock_guard lock(mutex_);
  usage_ += sane;
}

Usage Spending::usage() const {
  const std::lock_guard lock(mutex_);
  return usage_;
}

std::optional<double> Spending::usd_left() const {
  if (!limits_.usd) return std::nullopt;
  return std::max(0.0, *limits_.usd - usage().cost_usd.value_or(0));
}

void Spending::count_calls(int calls) {
  const std::lock_guard lock(mutex_);
  calls_ += calls;
}

int Spending::calls() const {
  const std::lock_guard lock(mutex_);
  return calls_;
}

}  // namespace necrocode::llm
