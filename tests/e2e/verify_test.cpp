// `necrocode verify` and `config check`: that they tell the truth, live and not.
#include "e2e/services_fixture.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;

TEST_F(EndToEnd, VerifyAndConfigCheckTellTheTruth) {
  std::string output;
  EXPECT_EQ(run({"verify", "--json"}, &output), 0) << output;
  EXPECT_THAT(output, HasSubstr("\"ok\": true"));
  write_file_atomic(path("config.yaml"), "max_memory_mb: 2048\nllm:\n  timeout_seconds: 7\n");
  output.clear();
  EXPECT_EQ(run({"config", "show", "--json", "--config", path("config.yaml").string()}, &output),
            0);
  EXPECT_EQ(Json::parse(output)["llm.timeout_seconds"], Json(7.0));
  EXPECT_EQ(Json::parse(output)["pools.auto_create"], Json(true));
  EXPECT_THAT(stderr_text(), HasSubstr("max_memory_mb (file "));
  EXPECT_THAT(stderr_text(), HasSubstr("not enforced by this version"));
  write_file_atomic(path("config.yaml"), "task_registry_url: not-a-url\n");
  EXPECT_EQ(run({"verify", "--config", path("config.yaml").string()}), 1);
  write_file_atomic(path("config.yaml"), "llm:\n  modle: x\ndefault_timeout_seconds: \"5\"\n");
  EXPECT_EQ(run({"config", "check", "--config", path("config.yaml").string()}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("llm.model"));
  EXPECT_THAT(stderr_text(), HasSubstr("config.yaml:3"));
}

TEST_F(Services, VerifyLiveCallsEachOperationOfEachService) {
  serve_model({raw_answer(200, Json::parse(R"({"choices":[{"finish_reason":"stop",
      "message":{"role":"assistant","content":"ok"}}]})"),
                          0)});
  std::string output;
  EXPECT_EQ(
      run({"verify", "--live", "--url", url_, "--llm-endpoint", endpoint(), "--json"}, &output), 0)
      << output << stderr_text();
  const Json report = Json::parse(output);
  std::map<std::string, int> operations;
  for (const Json& one : report["operations"].items()) {
    EXPECT_EQ(one["ok"], Json(true)) << one.dump();
    ++operations[one["service"].string_or("")];
  }
  EXPECT_THAT(operations, testing::ElementsAre(
                              testing::Pair("artifact-store", 13), testing::Pair("llm", 1),
                              testing::Pair("repo-pool", 10), testing::Pair("task-registry", 24)));
  EXPECT_EQ(leased_slots(), 0);
}

TEST_F(Services, VerifyLiveOfAServiceThatIsGoneSaysWhichOperationsFail) {
  services_.reset();
  std::string output;
  write_file_atomic(path("config.yaml"), "network_retry_count: 0\n");
  EXPECT_EQ(run({"verify", "--live", "--registry", url_, "--config", path("config.yaml").string(),
                 "--json"},
                &output),
            1);
  const Json report = Json::parse(output);
  EXPECT_EQ(report["ok"], Json(false));
  ASSERT_EQ(report["operations"].size(), 24U);
  EXPECT_EQ(report["operations"].items()[1]["operation"], Json("submit"));
  EXPECT_EQ(report["operations"].items()[2]["detail"], Json("not tried: what it needs has failed"));
}

}  // namespace
}  // namespace necrocode::test
