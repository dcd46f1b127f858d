// Random commands against the model: every answer and the whole state are the same.
//   NECROCODE_RANDOM_STEPS   so many commands, of new seeds, instead of the few that ctest runs
//   NECROCODE_RANDOM_SEED    only that seed
#include <cstdlib>

#include "conformance/random_run.hpp"

namespace necrocode::registry {
namespace {

constexpr int kStepsOfASeed = 300;
constexpr int kSeeds = 20;
constexpr int kCheckEvery = 10;

std::uint64_t number_from(const char* variable) {
  const char* text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 10) : 0;
}

std::vector<Command> commands_of(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  return random_commands(random, kStepsOfASeed);
}

/// What differs, and the short sequence that shows it; "" when nothing does.
std::string report(const StoreFactory& factory, std::uint64_t seed,
                   const StoreOptions& model_options = RandomRun::options()) {
  std::vector<Command> commands = commands_of(seed);
  const auto first = RandomRun(factory, kCheckEvery, model_options).run(commands);
  if (!first) return {};
  commands.resize(first->step + 1);
  commands = shrink(std::move(commands), [&](const std::vector<Command>& shorter) {
    return RandomRun(factory, 1, model_options).run(shorter).has_value();
  });
  const auto shrunk = RandomRun(factory, 1, model_options).run(commands);
  return "seed " + std::to_string(seed) + ", " + std::to_string(commands.size()) + " commands:\n" +
         describe(commands) + "  " + (shrunk ? *shrunk : *first).what;
}

class RandomCommands : public testing::TestWithParam<StoreFactory> {};

TEST_P(RandomCommands, HaveTheAnswersOfTheModel) {
  std::vector<std::uint64_t> seeds;
  const std::uint64_t steps = number_from("NECROCODE_RANDOM_STEPS");
  std::random_device fresh;
  for (std::uint64_t i = 0; i * kStepsOfASeed < steps; ++i) seeds.push_back(fresh());
  const std::uint64_t one = number_from("NECROCODE_RANDOM_SEED");
  if (one) seeds = {one};
  for (std::uint64_t seed = 1; seed <= kSeeds && steps == 0 && !one; ++seed) seeds.push_back(seed);
  for (const std::uint64_t seed : seeds) {
    const std::string different = report(GetParam(), seed);
    ASSERT_TRUE(different.empty()) << different;
  }
}
INSTANTIATE_TEST_SUITE_P(Stores, RandomCommands, testing::ValuesIn(store_factories()),
                         name_of_factory);

TEST(RandomCommandsThemselves, FindAForgottenLimitAndShrinkToAFewCommands) {
  // The model as a store that knows of no limit by skill.
  const StoreFactory forgetful{"Forgetful",
                               [](const auto&, const Clock& clock, const StoreOptions&) {
                                 return std::make_unique<ModelTaskStore>(clock);
                               },
                               false};
  std::string different;
  for (std::uint64_t seed = 1; different.empty() && seed < 50; ++seed) {
    different = report(forgetful, seed);
  }
  ASSERT_FALSE(different.empty()) << "a store without this limit was taken for one with it";
  EXPECT_LE(std::count(different.begin(), different.end(), '\n'), 14) << different;
}

}  // namespace
}  // namespace necrocode::registry
