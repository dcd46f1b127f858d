#include "necrocode/runner/transcript.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/file.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::runner {
namespace {

using testing::HasSubstr;
using testing::Not;

class Transcripts : public testing::Test {
 protected:
  std::filesystem::path file() const { return folder_.path() / "transcript.jsonl"; }
  std::string text() const { return read_file(file(), 64 * limits::kMiB); }
  std::vector<Json> lines() const {
    std::vector<Json> lines;
    const std::string all = text();
    for (const std::string_view line : split(all, '\n')) {
      if (!line.empty()) lines.push_back(Json::parse(line));
    }
    return lines;
  }

 private:
  TemporaryDirectory folder_;
};

TEST_F(Transcripts, AreALineForEachThingSaid) {
  const Masker masker;
  Transcript transcript(file(), masker);
  EXPECT_TRUE(transcript.empty());
  transcript.asked("do it");
  transcript.failed("no JSON");
  transcript.asked("again");
  transcript.answered("m", "done", {});
  const auto said = lines();
  ASSERT_EQ(said.size(), 4u);
  EXPECT_EQ(said[0], Json::object({{"call", 1}, {"prompt", "do it"}}));
  EXPECT_EQ(said[1], Json::object({{"call", 1}, {"error", "no JSON"}}));
  EXPECT_EQ(said[3]["call"], Json(2));
  EXPECT_EQ(said[3]["answer"]["text"], Json("done"));
}

TEST_F(Transcripts, HoldNoSecretAndNoBrokenText) {
  const Secret secret("s3cret-\"quoted\"-value");
  const Masker masker({&secret});
  Transcript transcript(file(), masker);
  transcript.asked("the key is s3cret-\"quoted\"-value \xff");
  transcript.answered("m", "s3cret-\"quoted\"-value", {});
  transcript.answered("m", "s3cret-\x1b[31m\"quoted\"-val\x1b[0mue", {});
  EXPECT_THAT(text(), Not(HasSubstr("s3cret")));
  EXPECT_EQ(lines().size(), 3u);
}

TEST_F(Transcripts, ThatCannotBeWrittenEndAndThrowNothing) {
  const Masker masker;
  std::filesystem::create_symlink("elsewhere", file());
  Transcript transcript(file(), masker);
  transcript.asked("do it");
  EXPECT_TRUE(transcript.empty());
  EXPECT_FALSE(std::filesystem::exists(file()));
}

TEST_F(Transcripts, BeyondTheirBoundSayThatTheRestIsLeftOut) {
  const Masker masker;
  Transcript transcript(file(), masker);
  const std::string large(3 * limits::kMiB, 'x');
  for (int i = 0; i < 10; ++i) transcript.asked(large);
  EXPECT_LE(text().size(), 16 * limits::kMiB + 100);
  EXPECT_EQ(lines().back()["left_out"], Json(true));
}

}  // namespace
}  // namespace necrocode::runner
