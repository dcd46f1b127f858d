#include "necrocode/llm/prices.hpp"

#include <gmock/gmock.h>

#include <limits>

#include "necrocode/base/errors.hpp"

namespace necrocode::llm {
namespace {

using testing::DoubleNear;
using testing::Optional;

Json price(double input, double output) {
  return Json::object({{"input", input}, {"output", output}});
}

/// The input price tells which entry was found; 0: none.
PriceTable families() {
  return PriceTable(Json::object({{"gpt-4", price(1, 1)},
                                  {"gpt-4o", price(2, 1)},
                                  {"gpt-4o-mini", price(3, 1)},
                                  {"gpt-4o-2024-05-13", price(4, 1)},
                                  {"claude-sonnet-4", price(5, 1)},
                                  {"gemini-2.5-pro-preview", price(6, 1)},
                                  {"openrouter/gpt-4o", price(7, 1)},
                                  {"llama-3", price(8, 1)},
                                  {"llama-3:free", price(0.5, 0)},
                                  {"gpt-4-0613", price(9, 1)}}));
}

double found(std::string_view model) {
  const PriceTable table = families();
  const Price* price = table.find(model);
  return price ? price->input : 0;
}

TEST(PriceTable, ExactNameThenItsPrice) {
  EXPECT_EQ(found("gpt-4"), 1);
  EXPECT_EQ(found("gpt-4o-mini"), 3);
  EXPECT_EQ(found("gpt-4o-2024-05-13"), 4);
}

TEST(PriceTable, DatedNameThenItsFamilysPrice) {
  EXPECT_EQ(found("gpt-4o-2024-08-06"), 2);
  EXPECT_EQ(found("gpt-4o-mini-2024-07-18"), 3);
  EXPECT_EQ(found("gpt-4o-latest"), 2);
  EXPECT_EQ(found("claude-sonnet-4-20250514"), 5);
  EXPECT_EQ(found("claude-sonnet-4@20250514"), 5);
  EXPECT_EQ(found("claude-sonnet-4@latest"), 5);
  EXPECT_EQ(found("gemini-2.5-pro-preview-05-06"), 6);
  EXPECT_EQ(found("gemini-2.5-pro-preview-002"), 6);
  EXPECT_EQ(found("gpt-4-1106"), 1);
  EXPECT_EQ(found("gpt-4-2407"), 1);
}

TEST(PriceTable, SeveralFamiliesThenTheLongest) {
  EXPECT_EQ(found("gpt-4-0613"), 9);
  EXPECT_EQ(found("gpt-4-0613-latest"), 9);
  EXPECT_EQ(found("gpt-4o-2024-05-13-latest"), 4);
}

TEST(PriceTable, ProvidersBeforeTheNameThenStripped) {
  EXPECT_EQ(found("openai/gpt-4o"), 2);
  EXPECT_EQ(found("models/gemini-2.5-pro-preview-05-06"), 6);
  EXPECT_EQ(found("a/b/anthropic/claude-sonnet-4-20250514"), 5);
  EXPECT_EQ(found("openrouter/gpt-4o"), 7);
  EXPECT_EQ(found("openrouter/gpt-4o-2024-08-06"), 7);
}

TEST(PriceTable, AnotherModelThenNoPriceOfItsNeighbour) {
  for (const char* model : {"gpt-4o-nano",
                            "gpt-4-32k",
                            "gpt-4-0125-preview",
                            "gpt-4.1",
                            "gpt-40",
                            "gpt",
                            "GPT-4o",
                            "",
                            "gpt-4o/",
                            "/",
                            "gpt-4o:free",
                            "openai/gpt-4o:free",
                            "llama-3:online",
                            "ft:gpt-4o",
                            "gpt-4o-2024-13-06",
                            "gpt-4o-2024-08",
                            "gpt-4-9999",
                            "llama-3-405",
                            "llama-3-70b",
                            "gpt-4o-20249901",
                            "-latest",
                            "mygpt-4o",
                            "claude-sonnet-4-5"}) {
    EXPECT_EQ(found(model), 0) << model;
  }
  EXPECT_EQ(found("meta/llama-3:free"), 0.5);
}

TEST(PriceTable, WrongTableThenEveryDefectByItsPointer) {
  try {
    PriceTable(
        Json::object({{"a/b", Json::object({{"inptu", 1}, {"input", -1}, {"output", 2}})},
                      {"c", Json::object({{"input", std::numeric_limits<double>::quiet_NaN()}})},
                      {"d", 5},
                      {"e", Json::object({{"input", "1"}, {"output", 1e7}})}}));
    FAIL();
  } catch (const ConfigError& error) {
    std::vector<std::string> told;
    for (const FieldError& field : error.info().fields)
      told.push_back(field.pointer + ": " + field.message);
    using testing::StartsWith;
    EXPECT_THAT(told, testing::ElementsAre(StartsWith("/a~1b/input: must be between"),
                                           "/a~1b/inptu: is unknown; did you mean \"input\"?",
                                           StartsWith("/c/output: is required"),
                                           StartsWith("/c/input: must be between"),
                                           "/d: must be an object, not an integer",
                                           "/e/input: must be a number, not a string",
                                           StartsWith("/e/output: must be between")));
  }
  EXPECT_THROW(PriceTable{Json::array()}, ConfigError);
}

TEST(PriceTable, LongestAnswerThenOfTheTableOrTheUsual) {
  const Json usual = Json::object({{"input", 1}, {"output", 1}});
  Json own = usual;
  own.set("max_output_tokens", 4096);
  const PriceTable table(Json::object({{"a", usual}, {"b", own}}));
  EXPECT_EQ(table.find("a")->max_output_tokens, 128'000);
  EXPECT_EQ(table.find("b-2026-01-01")->max_output_tokens, 4096);
  for (const Json& wrong : {Json(0), Json(1.5), Json("1")}) {
    EXPECT_THROW(PriceTable(Json::object({{"m", own.set("max_output_tokens", wrong)}})),
                 ConfigError);
  }
}

TEST(PriceTable, NothingThenNoPrices) {
  for (const Json& none : {Json(), Json::object()}) {
    const PriceTable table(none);
    EXPECT_TRUE(table.empty());
    EXPECT_EQ(table.cost("gpt-4", {}), std::nullopt);
    EXPECT_EQ(table.worst_case("gpt-4", 1, 1), std::nullopt);
  }
  EXPECT_FALSE(families().empty());
}

TEST(PriceTable, CostThenCachedAndWrittenTokensAtTheirOwnPrice) {
  const PriceTable table(Json::object(
      {{"m",
        Json::object({{"input", 2.5}, {"output", 10}, {"cached_input", 1.25}, {"cache_write", 5}})},
       {"plain", price(2, 4)}}));
  Usage usage;
  usage.prompt_tokens = 1'000'000;
  usage.cached_tokens = 400'000;
  usage.cache_write_tokens = 200'000;
  usage.completion_tokens = 100'000;
  usage.reasoning_tokens = 90'000;  // of the completion: paid for with it
  EXPECT_THAT(table.cost("m", usage), Optional(DoubleNear(1 + 0.5 + 1 + 1, 1e-9)));
  EXPECT_THAT(table.cost("plain", usage), Optional(DoubleNear(2 + 0.4, 1e-9)));
  EXPECT_EQ(table.cost("other", usage), std::nullopt);
}

TEST(PriceTable, ImpossibleCountsThenACostThatIsPossible) {
  const PriceTable table(
      Json::object({{"m", Json::object({{"input", 1}, {"output", 1}, {"cached_input", 0}})}}));
  Usage usage;
  usage.prompt_tokens = 1'000'000;
  usage.cached_tokens = 5'000'000;
  usage.cache_write_tokens = 5'000'000;
  usage.completion_tokens = -7;
  EXPECT_EQ(table.cost("m", usage), 0.0);
  usage.prompt_tokens = -1'000'000;
  EXPECT_EQ(table.cost("m", usage), 0.0);
  usage.prompt_tokens = 1'000'000;
  usage.cached_tokens = -5;
  usage.cache_write_tokens = -5;
  EXPECT_EQ(table.cost("m", usage), 1.0);
}

TEST(PriceTable, WorstCaseThenTheDearestPromptAndTheLongestAnswer) {
  const PriceTable table(
      Json::object({{"m", Json::object({{"input", 2}, {"output", 10}, {"cache_write", 4}})}}));
  EXPECT_THAT(table.worst_case("m", 1'000'000, 100'000), Optional(DoubleNear(4 + 1, 1e-9)));
  EXPECT_EQ(table.worst_case("m", 0, -5), 0.0);
}

TEST(PriceTable, WrittenToACacheForAnHourThenDearer) {
  const PriceTable table(
      Json::parse(R"({"m":{"input":4,"output":20,"cached_input":0.4,"cache_write":5}})"));
  Usage usage;
  usage.prompt_tokens = 3'000'000;
  usage.cache_write_tokens = 2'000'000;
  EXPECT_DOUBLE_EQ(*table.cost("m", usage), 4 + 2 * 5);
  EXPECT_DOUBLE_EQ(*table.cost("m", usage, 1'000'000), 4 + 5 + 8);
  EXPECT_DOUBLE_EQ(*table.cost("m", usage, 9'000'000), 4 + 2 * 8);  // no more than were written
  EXPECT_DOUBLE_EQ(*table.worst_case("m", 1'000'000, 0), 5);
  EXPECT_DOUBLE_EQ(*table.worst_case("m", 1'000'000, 0, true), 8);
}

}  // namespace
}  // namespace necrocode::llm
