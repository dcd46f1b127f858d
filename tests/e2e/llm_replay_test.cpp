// `necrocode llm serve-replay` and `llm record`: the shipped binary as a model service.
#include "e2e/fixture.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class LlmReplay : public EndToEnd {
 protected:
  std::string write_cassette(const std::string& entries) {
    write_file_atomic(path("cassette.json"), R"({"version":1,"entries":)" + entries + "}");
    return path("cassette.json").string();
  }
  /// Starts `llm ARGUMENTS`; what its first line says.
  Json start_server(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "llm");
    server_ = start(arguments);
    return Json::try_parse(server_->read_line().value_or("")).value_or(Json());
  }
  int status_of(const Json& ready, const std::string& text) {
    net::HttpRequest request;
    request.method = "POST";
    request.url = ready["endpoint"].string_or("") + "/chat/completions";
    const Json message = Json::object({{"role", "user"}, {"content", text}});
    request.body = Json::object({{"messages", Json(Json::Array{message})}}).dump();
    return net::make_curl_http_client()->send(request, {}).status;
  }
  std::unique_ptr<Program> server_;
};

TEST_F(LlmReplay, DrillsOfTheCommandLineThenAnswersGoWrongByRule) {
  const std::string cassette = write_cassette(R"([{"times":0,"answer":{"content":"x"}}])");
  const Json ready = start_server({"serve-replay", cassette, "--drill", "rate_limit:every=2",
                                   "--drill", "error:status=503:every=3"});
  EXPECT_EQ(ready["drills"].dump(), R"(["rate_limit:every=2","error:every=3:status=503"])");
  std::vector<int> statuses;
  for (int i = 0; i < 6; ++i) statuses.push_back(status_of(ready, "x"));
  EXPECT_THAT(statuses, ElementsAre(200, 429, 503, 429, 200, 429));
}

TEST_F(LlmReplay, DrillThatIsNoneThenAWrongCommandLine) {
  const std::string cassette = write_cassette("[]");
  EXPECT_EQ(run({"llm", "serve-replay", cassette, "--drill", "explode"}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("must be stall, reset"));
  EXPECT_EQ(run({"llm", "record"}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("--out"));
}

TEST_F(LlmReplay, RecordedThenTheCassetteAnswersTheSameAlsoAfterAKill) {
  const std::string key = "sk-recorded-key-0123456789";
  serve_model({answer(Json("said with " + key))});
  extra_env_ = {"LLM_API_KEY=" + key};
  const std::string out = path("recorded.json").string();
  const Json ready = start_server({"record", "--llm-endpoint", endpoint(), "--out", out});
  EXPECT_EQ(ready["records"], Json(endpoint()));
  const auto chat = [&](const std::string& at, std::string* output) {
    return run({"llm", "chat", "say it", "--llm-endpoint", at}, output);
  };
  std::string first;
  EXPECT_EQ(chat(ready["endpoint"].string_or(""), &first), 0) << stderr_text();
  EXPECT_EQ(first, "said with ***\n");
  server_->signal(SIGKILL);
  server_->wait();
  EXPECT_THAT(read_file(out, limits::kMiB), Not(HasSubstr(key)));
  const Json again = start_server({"serve-replay", out});
  std::string second;
  EXPECT_EQ(chat(again["endpoint"].string_or(""), &second), 0) << stderr_text();
  EXPECT_EQ(second, first);
}

TEST_F(LlmReplay, RecorderOfAProviderThenItsKeyGoesToItsOwnAddress) {
  extra_env_ = {"LLM_PROVIDER=anthropic", "ANTHROPIC_API_KEY=sk-ant-0123456789"};
  const Json ready = start_server({"record", "--out", path("recorded.json").string()});
  EXPECT_EQ(ready["records"], Json("https://api.anthropic.com/v1"));
}

TEST_F(LlmReplay, RecorderIsStoppedThenItSaysWhatItHas) {
  serve_model({answer(Json("one"))});
  const Json ready = start_server(
      {"record", "--llm-endpoint", endpoint(), "--out", path("recorded.json").string()});
  EXPECT_EQ(status_of(ready, "x"), 200);
  server_->signal(SIGTERM);
  std::string output;
  EXPECT_EQ(server_->wait(&output), 0) << stderr_text();
  EXPECT_EQ(output, "{\"event\":\"stopped\",\"recorded\":1,\"left_out\":0}\n");
}

TEST_F(LlmReplay, RecorderForOthersThenRefused) {
  EXPECT_EQ(run({"llm", "record", "--listen", "0.0.0.0:0", "--llm-endpoint", "http://127.0.0.1:1",
                 "--out", path("recorded.json").string()}),
            6);
}

}  // namespace
}  // namespace necrocode::test
