#include "necrocode/llm/prices.hpp"

#include <algorithm>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::llm {
namespace {

constexpr double kPriceMax = 1e6;  // a dollar a token: no model is near it, a slip may be
constexpr double kPerPrice = 1e6;  // tokens
constexpr std::int64_t kOutputTokensMax = 1'000'000'000;
const std::vector<std::string> kMembers = {"input", "output", "cached_input", "cache_write",
                                           "max_output_tokens"};

Price read_price(JsonFields& fields) {
  Price price;
  for (const char* name : {"input", "output"}) fields.require(name);
  price.input = fields.number("input", 0, kPriceMax).value_or(0);
  price.output = fields.number("output", 0, kPriceMax).value_or(0);
  price.cached_input = fields.number("cached_input", 0, kPriceMax).value_or(price.input);
  price.cache_write = fields.number("cache_write", 0, kPriceMax).value_or(price.input);
  price.max_output_tokens =
      fields.integer("max_output_tokens", 1, kOutputTokensMax).value_or(price.max_output_tokens);
  for (const std::string& name : fields.unknown()) {
    fields.fail(name, "is unknown; did you mean \"" + nearest(name, kMembers) + "\"?");
  }
  return price;
}

/// '0' stands for a digit, every other character for itself.
bool has_shape(std::string_view text, std::string_view shape) {
  return std::equal(text.begin(), text.end(), shape.begin(), shape.end(),
                    [](char c, char like) { return like == '0' ? is_ascii_digit(c) : c == like; });
}

bool is_month(std::string_view digits) {
  return digits >= "01" && digits <= "12";
}

/// What may follow a family's name: each with where its month stands (0: nowhere).
struct Version {
  std::string_view shape;
  std::size_t month = 0;
};
// The shortest first, so that the longest family is found first.
constexpr Version kVersions[] = {
    {"-000"},    {"-0000", 1},     {"-0000", 3},     {"-00-00", 1},      {"-latest"},
    {"@latest"}, {"-00000000", 5}, {"@00000000", 5}, {"-0000-00-00", 6},
};

bool is_version(std::string_view ending, const Version& version) {
  if (!has_shape(ending, version.shape)) return false;
  if (version.shape == "-000") return ending.substr(1, 2) == "00";  // revision 1 to 9, no size
  return version.month == 0 || is_month(ending.substr(version.month, 2));
}

double per_token(double price) {
  return price / kPerPrice;
}

}  // namespace

PriceTable::PriceTable(const Json& prices) {
  if (prices.is_null()) return;
  JsonFields table(prices);
  for (const auto& [model, value] : prices.members()) {
    JsonFields fields(value, table.pointer(model));
    prices_[model] = read_price(fields);
    table.absorb(fields);
  }
  if (table.errors().empty()) return;
  ErrorInfo info;
  info.fields = table.errors();
  throw ConfigError("the price table is wrong", std::move(info));
}

const Price* PriceTable::find_family(std::string_view model) const {
  if (const auto same = prices_.find(model); same != prices_.end()) return &same->second;
  for (const Version& version : kVersions) {
    if (model.size() <= version.shape.size()) continue;
    const std::size_t family = model.size() - version.shape.size();
    if (!is_version(model.substr(family), version)) continue;
    if (const auto found = prices_.find(model.substr(0, family)); found != prices_.end())
      return &found->second;
  }
  return nullptr;
}

const Price* PriceTable::find(std::string_view model) const {
  for (;;) {
    if (const Price* price = find_family(model)) return price;
    const std::size_t slash = model.find('/');
    if (slash == std::string_view::npos) return nullptr;
    model.remove_prefix(slash + 1);
  }
}

std::optional<double> PriceTable::cost(std::string_view model, const Usage& usage,
                                       std::int64_t hour_cache_tokens) const {
  const Price* price = find(model);
  if (!price) return std::nullopt;
  // The parts are the service's figures: together never more than the whole, none below nothing.
  const auto prompt = std::max<std::int64_t>(usage.prompt_tokens, 0);
  const auto cached = std::clamp<std::int64_t>(usage.cached_tokens, 0, prompt);
  const auto written = std::clamp<std::int64_t>(usage.cache_write_tokens, 0, prompt - cached);
  const auto for_an_hour = std::clamp<std::int64_t>(hour_cache_tokens, 0, written);
  const auto completion = std::max<std::int64_t>(usage.completion_tokens, 0);
  return static_cast<double>(prompt - cached - written) * per_token(price->input) +
         static_cast<double>(cached) * per_token(price->cached_input) +
         (static_cast<double>(written - for_an_hour) +
          static_cast<double>(for_an_hour) * kHourCacheTimes) *
             per_token(price->cache_write) +
         static_cast<double>(completion) * per_token(price->output);
}

std::optional<double> PriceTable::worst_case(std::string_view model, std::int64_t prompt_tokens,
                                             std::int64_t answer_tokens,
                                             bool caches_for_an_hour) const {
  const Price* price = find(model);
  if (!price) return std::nullopt;
  const double written = price->cache_write * (caches_for_an_hour ? kHourCacheTimes : 1);
  const double dearest = std::max({price->input, price->cached_input, written});
  const auto tokens = [](std::int64_t count) {
    return static_cast<double>(std::max<std::int64_t>(count, 0));
  };
  return tokens(prompt_tokens) * per_token(dearest) +
         tokens(answer_tokens) * per_token(price->output);
}

}  // namespace necrocode::llm
