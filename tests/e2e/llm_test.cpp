// `necrocode llm chat|check|models`, and runs whose model is asked through fallbacks, prices and
// caps: the shipped binary.
#include "e2e/run_fixture.hpp"

namespace necrocode::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class Llm : public Run {
 protected:
  int llm(std::vector<std::string> arguments, std::string* output = nullptr) {
    arguments.insert(arguments.begin(), "llm");
    if (model_) arguments.insert(arguments.end(), {"--llm-endpoint", endpoint()});
    return run(arguments, output);
  }
  std::string write_config(const std::string& yaml) {
    write_file_atomic(path("config.yaml"), yaml);
    return path("config.yaml").string();
  }
};

TEST_F(Llm, ChatInEachDialectThenTheSameAnswer) {
  for (const char* provider : {"openai-chat", "openai-responses", "anthropic"}) {
    for (const char* how : {"--json", "--whole"}) {
      serve_model({answer(Json("four\nand no more"))});
      std::string output;
      EXPECT_EQ(llm({"chat", "two and two?", "--llm-provider", provider, how}, &output), 0)
          << provider << how << stderr_text();
      if (std::string(how) == "--whole") {
        EXPECT_EQ(output, "four\nand no more\n") << provider;
      } else {
        const Json told = Json::parse(output);
        EXPECT_EQ(told["content"], Json("four\nand no more")) << provider;
        EXPECT_EQ(told["attempts"], Json(1)) << provider;
        EXPECT_EQ(told["usage"]["estimated"], Json(false)) << provider;
      }
    }
  }
}

TEST_F(Llm, ChatOfAProviderThatIsNoneThenUsageErrorWithThoseThereAre) {
  EXPECT_EQ(llm({"chat", "x", "--llm-provider", "gopher"}), 2);
  EXPECT_THAT(stderr_text(), AllOf(HasSubstr("--llm-provider"), HasSubstr("openai-responses")));
}

TEST_F(Llm, KeyOfAnotherVendorThenNotUsed) {
  extra_env_ = {"OPENAI_API_KEY=sk-openai-0123456789"};
  EXPECT_EQ(llm({"chat", "x", "--llm-provider", "anthropic"}), 2);
  EXPECT_THAT(stderr_text(), AllOf(HasSubstr("api.anthropic.com"), HasSubstr("ANTHROPIC_API_KEY")));
}

TEST_F(Llm, CheckThenWhatWorksIsTold) {
  const Json tool =
      Json::object({{"id", "c1"}, {"name", "weather"}, {"arguments", R"({"city":"Rome"})"}});
  serve_model(
      {answer(Json("ok")), answer(Json("one two three")), answer(Json(R"({"sum":4})")),
       Json::object({{"answer", Json::object({{"tool_calls", Json(Json::Array{tool})}})}})});
  std::string output;
  EXPECT_EQ(llm({"check", "--json"}, &output), 0) << stderr_text();
  const Json told = Json::parse(output);
  EXPECT_EQ(told["ok"], Json(true));
  for (const Json& one : told["checks"].items()) {
    EXPECT_EQ(one["ok"], Json(true)) << one.dump();
  }
  EXPECT_EQ(told["checks"].size(), 6u);
  EXPECT_EQ(told["capabilities"]["format"], Json("json_schema"));
}

TEST_F(Llm, CheckOfAnEndpointThatLacksThingsThenTheyAreNamedAndItPasses) {
  serve_model(
      {answer(Json("ok")),
       raw_answer(400, Json::parse(R"({"error":{"message":"this server does not stream"}})")),
       answer(Json("one two")),
       raw_answer(400, Json::parse(R"({"error":{"message":"no response_format"}})")),
       raw_answer(400, Json::parse(R"({"error":{"message":"no response_format"}})")),
       answer(Json("four, I think")), answer(Json("Sunny."))});
  std::string output;
  EXPECT_EQ(llm({"check"}, &output), 0) << stderr_text();
  EXPECT_THAT(output, AllOf(HasSubstr("ok    answer"), HasSubstr("no    stream"),
                            HasSubstr("no    json_schema"), HasSubstr("no    tools")));
}

TEST_F(Llm, CheckOfAnEndpointThatLetsNobodyInThenItFailsAndStops) {
  serve_model({raw_answer(401, Json::object(), 0)});
  std::string output;
  EXPECT_EQ(llm({"check"}, &output), 1);
  EXPECT_THAT(output, AllOf(HasSubstr("FAIL  answer"), HasSubstr("401"), Not(HasSubstr("tools"))));
}

TEST_F(Llm, ModelsThenOneALine) {
  serve_model({Json::object({{"match", Json::object({{"model", "m-1"}})},
                             {"answer", Json::object({{"content", "x"}})}})});
  std::string output;
  EXPECT_EQ(llm({"models"}, &output), 0) << stderr_text();
  EXPECT_EQ(output, "m-1\n");
}

// ---- runs ---------------------------------------------------------------------------------------

class RunWithModel : public Llm {
 protected:
  void SetUp() override { make_remote({{"README", "hello\n"}}); }
};

TEST_F(RunWithModel, StreamThatBreaksOffThenTheRunIsDoneAllTheSame) {
  serve_model({Json::object({{"answer", Json::object({{"drill", "cut"}, {"after", 1}})}}),
               Json::object({{"answer", Json::object({{"drill", "truncate"}})}}),
               answer(change({{"file.txt", "good\n"}}))});
  Json result;
  EXPECT_EQ(run_task(task(), {}, &result), 0) << result.dump();
}

TEST_F(RunWithModel, DiffThenItIsApplied) {
  const Json diff = Json::object({{"file_path", "README"},
                                  {"operation", "modify"},
                                  {"content", nullptr},
                                  {"edits", nullptr},
                                  {"diff", "@@\n-hello\n+goodbye\n"}});
  serve_model({answer(Json::object({{"code_changes", Json(Json::Array{diff})}}))});
  Json all = task();
  all.set("test_commands", std::vector<std::string>{"grep -q goodbye README"});
  Json result;
  EXPECT_EQ(run_task(all, {}, &result), 0) << result.dump();
}

TEST_F(RunWithModel, RefusedKeyThenTheFallbackAnswersAndItsCostIsTold) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  const std::string good = endpoint();
  const auto serving = std::move(model_);
  serve_model({raw_answer(401, Json::object(), 0)});
  const std::string config =
      write_config("llm:\n  fallbacks:\n    - model: other-model\n      endpoint: " + good +
                   "\nprices:\n  other-model: {input: 1, output: 1}\n");
  Json result;
  EXPECT_EQ(run_task(task(), {"--config", config}, &result), 0) << result.dump();
  EXPECT_EQ(result["implementation"]["model"], Json("other-model"));
  EXPECT_GT(result["implementation"]["usage"]["cost_usd"].as_double().value_or(0), 0);
}

TEST_F(RunWithModel, KeyOfAFallbackThenForItsOwnAddressOrRefused) {
  extra_env_ = {"LLM_API_KEY=sk-first-0123456789"};
  const std::string config = write_config(
      "llm:\n  endpoint: http://127.0.0.1:9/v1\n  fallbacks:\n    - model: other\n"
      "      api_key_env_var: NOT_THERE\n");
  EXPECT_EQ(run({"llm", "chat", "x", "--config", config}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("$NOT_THERE"));
}

TEST_F(RunWithModel, CapReachedThenNoFurtherCallAndSeven) {
  serve_model({answer(Json("no change at all")), answer(change({{"file.txt", "good\n"}}))});
  const std::string config = write_config("budgets: {run_tokens: 1}\n");
  Json result;
  EXPECT_EQ(run_task(task(), {"--config", config}, &result), 7) << result.dump();
  EXPECT_EQ(model_->served().size(), 1u);
}

TEST_F(RunWithModel, CapInDollarsWithoutAPriceThenNoSecondCallAndSeven) {
  serve_model({answer(Json("no change at all")), answer(change({{"file.txt", "good\n"}}))});
  const std::string config = write_config("budgets: {run_usd: 5}\n");
  Json result;
  EXPECT_EQ(run_task(task(), {"--config", config}, &result), 7) << result.dump();
  EXPECT_THAT(result["error"].dump(), HasSubstr("price"));
}

}  // namespace
}  // namespace necrocode::test
