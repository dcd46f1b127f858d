// What a model's tokens cost, by the price table of the configuration.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "necrocode/base/json.hpp"
#include "necrocode/llm/model.hpp"

namespace necrocode::llm {

/// Anthropic's: twice the price of input, where a write for five minutes is 1.25 times that.
inline constexpr double kHourCacheTimes = 1.6;

/// US dollars per million tokens.
struct Price {
  double input = 0;
  double output = 0;        ///< reasoning included
  double cached_input = 0;  ///< read from the provider's cache; input's, where the table has none
  double cache_write = 0;   ///< the same; for an hour it is kHourCacheTimes as much
  /// Of one answer, at most: what a request without a limit of its own may take.
  std::int64_t max_output_tokens = 128'000;
};

/// A value type; reading from several threads at once is safe.
class PriceTable {
 public:
  PriceTable() = default;  ///< knows no price
  /// `{"gpt-4o": {"input": 2.5, "output": 10, "cached_input": 1.25, "cache_write": 3,
  /// "max_output_tokens": 16384}}`, all but the first two optional; null: none. Throws ConfigError
  /// that names every defect by JSON pointer: an unknown member (with the nearest known one), a
  /// price that is missing, no number, or not from 0 to 1,000,000.
  explicit PriceTable(const Json& prices);

  /// The price of the model of that very name; else of its family, when the name goes on with a
  /// date or revision (-2024-08-06, -20250514, @20250514, -05-06, -0613, -2407, -001, -latest),
  /// the longest family first; else the same without each provider before a slash (openai/…,
  /// models/…). Any other ending makes another model: gpt-4o-mini is not gpt-4o, nor is a variant
  /// after a colon (:free, :online). nullptr when there is none; points into the table.
  const Price* find(std::string_view model) const;
  /// US dollars for what an answer took; nothing when there is no price. `hour_cache_tokens`: of
  /// those written to a cache.
  std::optional<double> cost(std::string_view model, const Usage& usage,
                             std::int64_t hour_cache_tokens = 0) const;
  /// US dollars for at most so many tokens, the prompt's at their dearest: written to the cache,
  /// say; for an hour, where it `caches_for_an_hour`.
  std::optional<double> worst_case(std::string_view model, std::int64_t prompt_tokens,
                                   std::int64_t answer_tokens,
                                   bool caches_for_an_hour = false) const;
  bool empty() const { return prices_.empty(); }

 private:
  const Price* find_family(std::string_view model) const;

  std::map<std::string, Price, std::less<>> prices_;
};

}  // namespace necrocode::llm
