#include "necrocode/runner/transcript.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::runner {
namespace {

using testing::HasSubstr;
using testing::Not;

std::vector<Json> lines_of(const Transcript& transcript) {
  std::vector<Json> lines;
  for (const std::string_view line : split(transcript.text(), '\n')) {
    if (!line.empty()) lines.push_back(Json::parse(line));
  }
  return lines;
}

TEST(Transcripts, AreALineForEachThingSaid) {
  const Masker masker;
  Transcript transcript(masker);
  EXPECT_TRUE(transcript.empty());
  transcript.asked("do it");
  transcript.failed("no JSON");
  transcript.asked("again");
  transcript.answered("m", "done", {});
  const auto lines = lines_of(transcript);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0], Json::object({{"call", 1}, {"prompt", "do it"}}));
  EXPECT_EQ(lines[1], Json::object({{"call", 1}, {"error", "no JSON"}}));
  EXPECT_EQ(lines[3]["call"], Json(2));
  EXPECT_EQ(lines[3]["answer"]["text"], Json("done"));
}

TEST(Transcripts, HoldNoSecretAndNoBrokenText) {
  const Secret secret("s3cret-\"quoted\"-value");
  const Masker masker({&secret});
  Transcript transcript(masker);
  transcript.asked("the key is s3cret-\"quoted\"-value \xff");
  transcript.answered("m", "s3cret-\"quoted\"-value", {});
  transcript.answered("m", "s3cret-\x1b[31m\"quoted\"-val\x1b[0mue", {});
  EXPECT_THAT(transcript.text(), Not(HasSubstr("s3cret")));
  EXPECT_EQ(lines_of(transcript).size(), 3u);
}

TEST(Transcripts, BeyondTheirBoundSayThatTheRestIsLeftOut) {
  const Masker masker;
  Transcript transcript(masker);
  const std::string large(3 * limits::kMiB, 'x');
  for (int i = 0; i < 10; ++i) transcript.asked(large);
  EXPECT_LE(transcript.text().size(), 16 * limits::kMiB + 100);
  EXPECT_EQ(lines_of(transcript).back()["left_out"], Json(true));
}

}  // namespace
}  // namespace necrocode::runner
