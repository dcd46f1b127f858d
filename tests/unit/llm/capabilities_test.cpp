#include "necrocode/llm/capabilities.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <thread>
#include <vector>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/json.hpp"
#include "support/fake_clock.hpp"

namespace necrocode::llm {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr const char* kKey = "https://api.example.com/v1 gpt-4o openai-chat";

Capabilities without_temperature() {
  Capabilities capabilities;
  capabilities.temperature = false;
  return capabilities;
}
Capabilities plain_text() {
  Capabilities capabilities;
  capabilities.format = Format::kText;
  return capabilities;
}

TEST(Capabilities, CommonThenWhatBothAllow) {
  const Capabilities all;
  EXPECT_EQ(common(all, all), all);
  const Capabilities none{Format::kText, false, false, false, false};
  EXPECT_EQ(common(all, none), none);
  EXPECT_EQ(common(none, all), none);
  const Capabilities a{Format::kJsonObject, true, false, true, false};
  const Capabilities b{Format::kJsonSchema, false, true, true, true};
  EXPECT_EQ(common(a, b), (Capabilities{Format::kJsonObject, false, false, true, false}));
}

TEST(CapabilityTable, NothingLearnedThenEverything) {
  EXPECT_EQ(CapabilityTable().of(kKey), Capabilities());
}

TEST(CapabilityTable, LearnedThenKeptWithWhatWasKnown) {
  CapabilityTable table;
  EXPECT_EQ(table.learn(kKey, without_temperature()), without_temperature());
  const Capabilities both = common(without_temperature(), plain_text());
  EXPECT_EQ(table.learn(kKey, plain_text()), both);
  EXPECT_EQ(table.learn(kKey, Capabilities()), both);
  EXPECT_EQ(table.of(kKey), both);
  EXPECT_EQ(table.of("another"), Capabilities());
}

TEST(CapabilityTable, ManyThreadsThenNothingIsLost) {
  CapabilityTable table;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&table, i] {
      for (int n = 0; n < 20; ++n) {
        table.learn("key " + std::to_string(n), i % 2 ? plain_text() : without_temperature());
      }
    });
  }
  threads.clear();
  for (int n = 0; n < 20; ++n) {
    EXPECT_EQ(table.of("key " + std::to_string(n)), common(plain_text(), without_temperature()));
  }
}

class CapabilityFile : public testing::Test {
 protected:
  std::unique_ptr<CapabilityTable> table() {
    return std::make_unique<CapabilityTable>(file_, clock_);
  }
  std::string content() { return read_file(file_, limits::kMiB); }
  /// What goes to the log while `action` runs.
  template <class Action>
  std::string log_of(Action action) {
    testing::internal::CaptureStderr();
    action();
    return testing::internal::GetCapturedStderr();
  }
  static std::size_t warnings(const std::string& log) {
    std::size_t count = 0;
    for (std::size_t at = 0; (at = log.find("is not kept", at)) != std::string::npos; ++at) ++count;
    return count;
  }

  test::FakeClock clock_;
  TemporaryDirectory folder_;
  const std::filesystem::path file_ = folder_.path() / "below" / "capabilities.json";
};

TEST_F(CapabilityFile, LearnedThenTheNextProcessKnowsIt) {
  const Capabilities learned{Format::kJsonObject, false, false, false, false};
  EXPECT_EQ(log_of([&] { table()->learn(kKey, learned); }), "");
  EXPECT_EQ(table()->of(kKey), learned);
  struct stat info = {};
  ASSERT_EQ(::stat(file_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
}

TEST_F(CapabilityFile, NoNewsThenNothingIsWritten) {
  const auto first = table();
  first->learn(kKey, Capabilities());
  EXPECT_FALSE(std::filesystem::exists(file_));
  first->learn(kKey, plain_text());
  std::filesystem::remove(file_);
  first->learn(kKey, plain_text());
  EXPECT_FALSE(std::filesystem::exists(file_));
}

TEST_F(CapabilityFile, TwoProcessesThenNeitherLosesWhatTheOtherHasLearned) {
  const auto one = table();
  const auto two = table();
  one->learn("a", plain_text());
  two->learn("b", plain_text());
  two->learn("a", without_temperature());
  one->learn("c", plain_text());
  const auto later = table();
  EXPECT_EQ(later->of("a"), common(plain_text(), without_temperature()));
  EXPECT_EQ(later->of("b"), plain_text());
  EXPECT_EQ(later->of("c"), plain_text());
  EXPECT_EQ(one->of("b"), plain_text());
}

TEST_F(CapabilityFile, ManyWriteAtOnceThenNothingIsLost) {
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      CapabilityTable own(file_);  // each as if it were a process of its own
      for (int n = 0; n < 5; ++n) own.learn(std::to_string(i * 5 + n), plain_text());
    });
  }
  threads.clear();
  const CapabilityTable later(file_);
  for (int key = 0; key < 40; ++key) EXPECT_EQ(later.of(std::to_string(key)), plain_text()) << key;
}

TEST_F(CapabilityFile, OlderThanAWeekThenForgotten) {
  const auto learner = table();
  learner->learn("old", plain_text());
  clock_.advance(24h * 6);
  learner->learn("new", without_temperature());
  EXPECT_EQ(table()->of("old"), plain_text());
  clock_.advance(24h);
  EXPECT_EQ(learner->of("old"), Capabilities());
  EXPECT_EQ(table()->of("old"), Capabilities());
  EXPECT_EQ(table()->of("new"), without_temperature());
  EXPECT_EQ(learner->learn("old", without_temperature()), without_temperature());
  learner->learn("newest", plain_text());
  EXPECT_EQ(table()->of("old"), without_temperature());
}

TEST_F(CapabilityFile, FromTheFutureThenIgnored) {
  clock_.advance(48h);
  table()->learn(kKey, plain_text());
  test::FakeClock earlier;
  EXPECT_EQ(CapabilityTable(file_, earlier).of(kKey), Capabilities());
}

TEST_F(CapabilityFile, BrokenThenIgnoredWithAWarningAndWrittenAnew) {
  std::filesystem::create_directories(file_.parent_path());
  const std::string deep(100'000, '[');
  for (const std::string& broken :
       {std::string(), std::string("{"), deep, std::string("[]"), std::string("{\"endpoints\":[]}"),
        std::string("{}"), std::string("\xff\xfe"),
        std::string(R"({"endpoints":{"k":{"learned_at":"x","format":"text"}}})"),
        std::string(R"({"endpoints":{"k":{"format":"text"}}})"),
        std::string(R"({"endpoints":{"k":{"learned_at":1769860800,"format":"yaml"}}})"),
        std::string(R"({"endpoints":{"k":{"learned_at":1769860800,"format":"text","stream":1}}})"),
        std::string(R"({"endpoints":{"k":5}})"), std::string(5 * limits::kMiB, ' ')}) {
    write_file_atomic(file_, broken);
    std::unique_ptr<CapabilityTable> reader;
    EXPECT_EQ(warnings(log_of([&] { reader = table(); })), 1U) << broken.substr(0, 80);
    EXPECT_EQ(reader->of("k"), Capabilities());
    reader->learn(kKey, plain_text());
    EXPECT_EQ(table()->of(kKey), plain_text());
  }
}

TEST_F(CapabilityFile, AbilityThatAnOlderVersionDidNotKnowThenThere) {
  std::filesystem::create_directories(file_.parent_path());
  write_file_atomic(file_, R"({"endpoints":{"k":{"learned_at":1769860800,"format":"text"}}})");
  EXPECT_EQ(table()->of("k"), plain_text());
}

TEST_F(CapabilityFile, NoFileInItsPlaceThenNotFollowedNorWaitedFor) {
  std::filesystem::create_directories(file_.parent_path());
  const auto elsewhere = folder_.path() / "elsewhere";
  write_file_atomic(elsewhere, "untouched");
  std::filesystem::create_symlink(elsewhere, file_);
  EXPECT_EQ(warnings(log_of([&] { table()->learn(kKey, plain_text()); })), 1U);
  EXPECT_EQ(read_file(elsewhere, 100), "untouched");
  EXPECT_EQ(table()->of(kKey), plain_text());
  std::filesystem::remove(file_);
  ASSERT_EQ(::mkfifo(file_.c_str(), 0600), 0);
  EXPECT_EQ(warnings(log_of([&] { table()->learn(kKey, plain_text()); })), 1U);
  EXPECT_EQ(table()->of(kKey), plain_text());
}

TEST_F(CapabilityFile, PlaceThatCannotBeWrittenThenOneWarningAndKeptInMemory) {
  write_file_atomic(folder_.path() / "below", "a file where the folder should be");
  const auto learner = table();
  const std::string log = log_of([&] {
    learner->learn("a", plain_text());
    learner->learn("b", plain_text());
  });
  EXPECT_EQ(warnings(log), 1U) << log;
  EXPECT_EQ(learner->of("a"), plain_text());
}

TEST_F(CapabilityFile, LockThatIsNotGivenBackThenASecondAndAWarning) {
  const auto learner = table();
  learner->learn("a", plain_text());
  const FileDescriptor held(::open((file_.string() + ".lock").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(held.get(), LOCK_EX), 0);
  const SteadyTime begin = clock_.steady_now();
  EXPECT_EQ(warnings(log_of([&] { learner->learn("b", plain_text()); })), 1U);
  EXPECT_EQ(clock_.steady_now() - begin, 1s);
  EXPECT_EQ(learner->of("b"), plain_text());
  ASSERT_EQ(::flock(held.get(), LOCK_UN), 0);
  learner->learn("c", plain_text());
  EXPECT_EQ(table()->of("b"), plain_text());
}

TEST_F(CapabilityFile, MoreKeysThanTheLimitThenTheOldestAreForgotten) {
  Json endpoints = Json::object();
  for (int i = 0; i < 1005; ++i) {
    endpoints.members().emplace_back(
        "k" + std::to_string(i),
        Json::object({{"learned_at", 1'769'860'000 + (i * 7) % 1005}, {"format", "text"}}));
  }
  std::filesystem::create_directories(file_.parent_path());
  write_file_atomic(file_, Json::object({{"endpoints", endpoints}}).dump());
  const auto reader = table();
  EXPECT_EQ(reader->of("k0"), Capabilities());  // the oldest
  EXPECT_EQ(reader->of("k1004"), plain_text());
  reader->learn("one more", plain_text());
  EXPECT_EQ(Json::parse(content())["endpoints"].size(), 1000U);
  EXPECT_EQ(table()->of("one more"), plain_text());
}

TEST_F(CapabilityFile, KeyThatIsNoTextOrTooLongThenInMemoryOnly) {
  const auto learner = table();
  for (const std::string& key : {std::string("\xff"), std::string(5000, 'k')}) {
    learner->learn(key, plain_text());
    EXPECT_EQ(learner->of(key), plain_text());
  }
  EXPECT_EQ(Json::parse(content())["endpoints"].size(), 0U);
}

}  // namespace
}  // namespace necrocode::llm
