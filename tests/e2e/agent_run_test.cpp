// `necrocode run` with agent programs of our own, in the sandbox, which reach a replayed model
// through the metering proxy as real ones do.
#include "e2e/run_fixture.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class AgentRun : public Run {
 protected:
  void SetUp() override {
    make_remote({{"README", "hello\n"}});
    extra_env_ = {"OPENAI_API_KEY=sk-real-key-0123456789"};
  }

  // The program: asks the model once, then runs `script`; $1 is "first" or "again", $2 the prompt.
  int run_agent(const std::string& script, Json* result, const std::string& executor = "command",
                Json the_task = {}) {
    fs::create_directories(path("bin"));
    const std::string ask = R"sh(#!/bin/sh
      curl -sS -o "$HOME/answer" -w '%{http_code}' -H "Authorization: Bearer $OPENAI_API_KEY" \
        -H 'Content-Type: application/json' \
        -d '{"model":"m","max_tokens":100,"messages":[{"role":"user","content":"go"}]}' \
        "$OPENAI_BASE_URL/chat/completions" > "$HOME/status"
      test "$(cat "$HOME/status")" = 200 || exit 1
      )sh";
    write_file_atomic(path("bin/agent"), ask + script + "\n", 0755);
    const std::string program = path("bin/agent").string();
    write_file_atomic(path("config.yaml"),
                      "agent: mine\nagents:\n  mine:\n    argv: ['" + program +
                          "', first, '{prompt}']\n    resume: ['" + program +
                          "', again, '{prompt}']\n"
                          "providers: {openai: {base_url: '" +
                          endpoint() +
                          "'}}\nprices: {m: {input: 1, output: 10}}\nbudgets: {run_usd: 1}\n");
    return run_task(the_task.is_null() ? task() : the_task,
                    {"--config", path("config.yaml").string(), "--executor", executor}, result);
  }
  static Json said() { return answer(Json("done"), 0); }
};

TEST_F(AgentRun, ProgramInTheSandboxThenItsChangeIsPushedAndItsCallsAreMetered) {
  serve_model({said()});
  Json result;
  ASSERT_EQ(run_agent("echo good > file.txt; git status --porcelain > seen", &result), 0)
      << result.pretty() << stderr_text() << read_file(path("out/run.log"), limits::kMiB);
  const std::string branch = result["push"]["branch"].string_or("");
  EXPECT_EQ(git({"-C", remote(), "show", branch + ":file.txt"}), "good");
  EXPECT_THAT(git({"-C", remote(), "show", branch + ":seen"}), HasSubstr("?? file.txt"));
  const Json& made = result["implementation"];
  EXPECT_EQ(made["executor"], Json("command:mine"));
  EXPECT_EQ(made["model"], Json("m"));
  EXPECT_EQ(made["model_calls"], Json(1));
  EXPECT_TRUE(made["usage"]["cost_usd"].is_number()) << made.pretty();
  for (const char* file : {"run.log", "transcript.jsonl", "result.json"}) {
    EXPECT_THAT(read_file(path("out") / file, limits::kMiB), Not(HasSubstr("sk-real-key")));
  }
}

TEST_F(AgentRun, FailingTestThenTheSameSessionMendsIt) {
  serve_model({said()});
  Json result;
  ASSERT_EQ(run_agent(R"(echo "$1" >> "$HOME/rounds"
        if [ "$1" = first ]; then echo bad > file.txt; else
          echo good > file.txt; cp "$HOME/rounds" rounds; fi)",
                      &result),
            0)
      << result.pretty() << stderr_text();
  EXPECT_EQ(result["implementation"]["repairs"], Json(1));
  EXPECT_EQ(git({"-C", remote(), "show", result["push"]["branch"].string_or("-") + ":rounds"}),
            "first\nagain");
}

TEST_F(AgentRun, NothingButTheProxyThenReachableAndNothingOfTheHomeSeen) {
  serve_model({said()});
  write_file_atomic(path("secret"), "mine\n");
  Json result;
  const std::string model = endpoint() + "/models";
  ASSERT_EQ(run_agent("echo good > file.txt; { cat '" + path("secret").string() +
                          "' 2>/dev/null && echo READ; curl -sS --max-time 5 '" + model +
                          "' >/dev/null 2>&1 && echo REACHED; env | grep real-key; echo end; } "
                          "> seen",
                      &result),
            0)
      << result.pretty() << stderr_text();
  EXPECT_EQ(git({"-C", remote(), "show", result["push"]["branch"].string_or("-") + ":seen"}),
            "end");
}

TEST_F(AgentRun, ServiceThatRefusesTheKeyThenSevenAndTheNextExecutorIsAsked) {
  serve_model({raw_answer(401, Json::object({{"error", "no"}}), 0)});
  Json result;
  EXPECT_EQ(run_agent("exit 0", &result), 7) << result.pretty();
  EXPECT_THAT(result["error"]["reason"].string_or(""), HasSubstr("refused the key"));
  EXPECT_EQ(result["implementation"]["executor"], Json("command:mine"));
  const std::size_t before = model_calls();
  EXPECT_EQ(run_agent("exit 0", &result, "command:mine, command"), 7);
  EXPECT_EQ(model_calls() - before, 2U) << "one for each of the chain";
}

}  // namespace
}  // namespace necrocode::test
