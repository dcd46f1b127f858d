// That a service's own key never comes back to the program, however it is told and cut.
#include "necrocode/llm/key_filter.hpp"

#include "necrocode/base/base64.hpp"
#include "unit/llm/metering_fixture.hpp"

namespace necrocode::llm {
namespace {

std::shared_ptr<const HiddenKeys> keys(std::string_view key) {
  const Secret secret(key);
  return std::make_shared<const HiddenKeys>(std::vector<const Secret*>{&secret});
}

TEST(KeyFilter, AtEverySplitThenTheKeyIsHiddenAndNothingElse) {
  const std::string key = "a/key\"with+odd";
  const auto hidden = keys(key);
  const std::string other =
      " sk-0123456789abcdef0123456789abcdef0123 a/key a/ke";  // of no key here
  const std::string text =
      "x" + key + "," + base64_encode(key) + ";a/key%22with%2Bodd " + Json(key).dump() + other;
  for (std::size_t first = 0; first <= text.size(); ++first) {
    KeyFilter filter(hidden);
    std::string out = filter.take(text.substr(0, first));
    out += filter.take(text.substr(first));
    EXPECT_EQ(out + filter.finish(), "x***,***;*** \"***\"" + other);
  }
  EXPECT_EQ(hidden->hide(text), "x***,***;*** \"***\"" + other);
}

TEST(KeyFilter, NoBeginningOfAKeyThenNothingIsHeldBack) {
  KeyFilter filter(keys(kRealKey));
  EXPECT_EQ(filter.take("data: {}\n\n"), "data: {}\n\n");
  EXPECT_EQ(filter.take("it is the-r"), "it is ");
  EXPECT_EQ(filter.take("est\n"), "the-rest\n");
}

TEST(KeyFilter, TooShortForASecretThenItStays) {
  EXPECT_EQ(keys("none")->hide("none"), "none");
}

TEST_F(MeteringProxyTest, ServiceTellsTheKeyThenTheProgramDoesNotSeeIt) {
  const std::string key = kRealKey;
  RawServer service([&](RawConnection& connection) {
    while (const auto request = connection.read_request()) {
      if (request->body.find("stream") != std::string::npos) {
        connection.send(std::string(kStreamHead) + chunk("data: Bearer " + key.substr(0, 9)) +
                        chunk(key.substr(9) + " x\n\ndata: the-real") + chunk(""));
        continue;
      }
      const int status = request->body.find("refuse") != std::string::npos ? 401 : 200;
      connection.send(http("{\"got\":\"" + key + "\"}", "application/json", status,
                           "X-Echo: Bearer " + key + "\r\n"));
    }
  });
  start(service.url("/v1"));
  for (const char* text : {"answer", "refuse"}) {
    const Got got = get(kChat, ask(kChat, text));
    EXPECT_EQ(got.bytes, R"({"got":"***"})");
    EXPECT_EQ(got.headers.get_or("X-Echo", ""), "Bearer ***");
  }
  EXPECT_EQ(get(kChat, ask(kChat, "x", true)).bytes, "data: Bearer *** x\n\ndata: the-real");
  const auto models = test::send("GET", url("/v1/models"), "", bearer());
  EXPECT_EQ(models.body, R"({"got":"***"})");
  EXPECT_EQ(models.headers.get_or("X-Echo", ""), "Bearer ***");
}

}  // namespace
}  // namespace necrocode::llm
