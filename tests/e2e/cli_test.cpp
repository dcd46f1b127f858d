// The command line at its edges: descriptors that are full or closed, folders that cannot be used,
// signals, credentials, and what reaches stderr.
#include "e2e/fixture.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class CommandLine : public EndToEnd {
 protected:
  /// Starts the binary from a line of shell, where "$@" stands for it with its arguments.
  std::unique_ptr<Program> start_through(const std::string& shell,
                                         const std::vector<std::string>& arguments) {
    std::vector<std::string> argv = {"sh", "-c", shell, "sh", NECROCODE_BINARY};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    return std::make_unique<Program>(argv, environment(), path("stderr"));
  }
  std::vector<std::string> run_arguments(const Json& task, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {
        "run",    write_task(task),      "--no-baseline",  "--out",   path("out").string(),
        "--data", path("data").string(), "--llm-endpoint", endpoint()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  Json result() {
    return Json::try_parse(read_file(path("out/result.json"), limits::kMiB)).value_or(Json());
  }
  Json hanging_task(const std::string& mark) const {
    return Json(task()).set("test_commands", std::vector<std::string>{"sleep " + mark});
  }
};

TEST_F(CommandLine, FullStdoutThenTheRunEndsWellAndTheExitCodeTells) {
  make_remote({{"README", "hello\n"}});
  for (const std::string more : {"--json", "--no-baseline"}) {
    serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
    fs::remove_all(path("out"));
    auto program = start_through("exec \"$@\" >/dev/full", run_arguments(task(), {more}));
    EXPECT_EQ(program->wait(), 70);
    EXPECT_EQ(result()["success"], Json(true)) << stderr_text();
    EXPECT_THAT(stderr_text(), HasSubstr("cannot write to standard output: No space left"));
  }
}

TEST_F(CommandLine, FullStdoutOfACommandThatOnlyPrintsThenItFails) {
  EXPECT_EQ(start_through("exec \"$@\" >/dev/full", {"verify"})->wait(), 70);
  EXPECT_THAT(stderr_text(), HasSubstr("standard output"));
}

TEST_F(CommandLine, ClosedDescriptorsThenNoFileTakesTheirPlace) {
  make_remote({{"README", "hello\n"}});
  for (const std::string closed : {">&-", "<&- >&- 2>&-"}) {
    serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
    fs::remove_all(path("out"));
    fs::remove_all(path("data"));
    auto program = start_through("exec \"$@\" " + closed, run_arguments(task(), {"--json"}));
    EXPECT_EQ(program->wait(), 0) << stderr_text();
    EXPECT_EQ(result()["success"], Json(true)) << closed;
    // What is printed looks like this; the log looks otherwise.
    for (const auto& entry : fs::recursive_directory_iterator(path("out"))) {
      if (!entry.is_regular_file()) continue;
      EXPECT_THAT(read_file(entry.path(), limits::kMiB), Not(HasSubstr("\"type\":\"phase\"")))
          << entry.path();
    }
  }
}

TEST_F(CommandLine, ClosedDescriptorsThenCommandsThatOnlyPrintAndServicesWork) {
  for (const std::string closed : {">&-", "2>&-", "<&- >&- 2>&-"}) {
    EXPECT_EQ(start_through("exec \"$@\" " + closed, {"config", "check"})->wait(), 0) << closed;
    const fs::path data = path("served" + closed);
    auto served = start_through("exec \"$@\" " + closed,
                                {"serve", "--listen", "127.0.0.1:0", "--data", data.string()});
    EXPECT_TRUE(eventually([&] { return fs::exists(data / "registry.sqlite"); })) << closed;
    served->signal(SIGTERM);
    EXPECT_EQ(served->wait(), 0) << closed;
  }
}

TEST_F(CommandLine, NonBlockingStdoutThenAllOfALongOutputArrives) {
  make_remote({{"README", "hello\n"}});
  serve_model({});
  Json long_task = task();
  long_task.set("description", std::string(200 * 1024, 'd') + "END");
  const std::string set_up =
      "exec python3 -c 'import os, sys; os.set_blocking(1, False); os.execv(sys.argv[1], "
      "sys.argv[1:])' \"$@\"";
  std::string output;
  auto program = start_through(set_up, run_arguments(long_task, {"--plan", "--json"}));
  EXPECT_EQ(program->wait(&output), 0) << stderr_text();
  EXPECT_THAT(output, HasSubstr("dddEND"));
  EXPECT_THAT(output, HasSubstr("\"type\":\"result\""));
}

TEST_F(CommandLine, HangupInTheMiddleThenLikeSigterm) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  const std::string mark = "1414.213" + std::to_string(::getpid());
  auto program = start(run_arguments(hanging_task(mark), {"--json"}));
  ASSERT_TRUE(program->read_until("\"phase\":\"test\"").has_value()) << stderr_text();
  // A terminal that goes away sends it more than once: not the impatient second signal.
  program->signal(SIGHUP);
  program->signal(SIGHUP);
  std::string output;
  EXPECT_EQ(program->wait(&output, std::chrono::seconds{20}), 5) << stderr_text();
  EXPECT_EQ(result()["outcome"], Json("cancelled"));
  EXPECT_EQ(processes_with(mark), 0);
}

TEST_F(CommandLine, HangupUnderNohupThenTheRunGoesOn) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json slow = task();
  slow.set("test_commands", std::vector<std::string>{"sleep 0.5; grep -q good file.txt"});
  auto program = start_through("trap '' HUP; exec \"$@\"", run_arguments(slow, {"--json"}));
  ASSERT_TRUE(program->read_until("\"phase\":\"test\"").has_value()) << stderr_text();
  program->signal(SIGHUP);
  EXPECT_EQ(program->wait(), 0) << stderr_text();
}

TEST_F(CommandLine, FolderThatCannotBeUsedThenUsageErrorNamingTheFlag) {
  make_remote({{"README", "hello\n"}});
  serve_model({});
  write_file_atomic(path("file"), "not a folder\n");
  const std::string file = path("file").string();
  const std::string task_file = write_task(task());
  const std::vector<std::string> model = {"--llm-endpoint", endpoint()};
  struct Case {
    std::vector<std::string> arguments;
    std::string flag;
  };
  const std::string data = path("data").string();
  const std::vector<Case> cases = {
      {{"run", task_file, "--data", data, "--out", file}, "--out"},
      {{"run", task_file, "--data", data, "--out", "/proc/necrocode"}, "--out"},
      {{"run", task_file, "--data", "/proc/necrocode"}, "--data"},
      {{"worker", "--url", "http://127.0.0.1:1", "--data", "/proc/necrocode"}, "--data"},
      {{"worker", "--url", "http://127.0.0.1:1", "--data", file}, "--data"},
      {{"serve", "--listen", "127.0.0.1:0", "--data", "/proc/necrocode"}, "--data"},
      {{"serve", "--listen", "127.0.0.1:0", "--data", file + "/below"}, "--data"}};
  for (const Case& one : cases) {
    fs::remove(path("stderr"));
    EXPECT_EQ(run(one.arguments), 2) << join(one.arguments, " ");
    EXPECT_THAT(stderr_text(), HasSubstr("the folder of " + one.flag)) << stderr_text();
    EXPECT_THAT(stderr_text(), HasSubstr("cannot be used: ")) << stderr_text();
  }
  EXPECT_EQ(read_file(path("file"), 100), "not a folder\n");
}

TEST_F(CommandLine, FolderThatCannotBeUsedThenTheTaskIsNotClaimed) {
  make_remote({{"README", "hello\n"}});
  serve_model({});
  net::ServiceOptions options;
  const std::string url = serve_tapped();
  options.base_url = url;
  TaskRegistryClient registry(std::move(options));
  Json one = task();
  one.erase("task_id");
  one.set("id", "1");
  registry.submit(Json::object({{"spec_name", "e2e"}, {"tasks", Json::Array{one}}}));
  write_file_atomic(path("file"), "not a folder\n");
  EXPECT_EQ(run({"run", write_task(task()), "--url", url, "--llm-endpoint", endpoint(), "--data",
                 path("data").string(), "--out", path("file").string()}),
            2);
  EXPECT_EQ(registry.get_task("e2e:1").state, registry::TaskState::kReady);
  EXPECT_EQ(registry.get_task("e2e:1").attempt, 0);
}

TEST_F(CommandLine, InputThatCannotBeReadThenUsageErrorNamingIt) {
  const std::string none = path("none.json").string();
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"task", "submit", none},
        {"artifact", "put", "log", none},
        {"artifact", "put", "log", "/tmp"},
        {"llm", "serve-replay", none}}) {
    fs::remove(path("stderr"));
    EXPECT_EQ(run(arguments), 2) << join(arguments, " ");
    EXPECT_THAT(stderr_text(), HasSubstr("cannot read " + arguments.back())) << stderr_text();
  }
  extra_env_ = {"LLM_API_KEY_FILE=/nonexistent"};
  EXPECT_EQ(run({"llm", "chat", "hello"}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("/nonexistent of $LLM_API_KEY_FILE"));
}

TEST_F(CommandLine, CredentialVariableSetToNothingThenRefusedForSecurityByName) {
  for (const std::string name :
       {"LLM_API_KEY", "OPENAI_API_KEY", "GIT_TOKEN", "LLM_API_KEY_FILE", "GIT_TOKEN_FILE"}) {
    extra_env_ = {name + "="};
    fs::remove(path("stderr"));
    EXPECT_EQ(run({"run", write_task(task())}), 6) << name;
    EXPECT_THAT(stderr_text(), HasSubstr("$" + name + " "));
  }
}

TEST_F(CommandLine, SecretsAndEscapesOfOthersThenNotOnStderr) {
  make_remote({{"README", "hello\n"}});
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  const std::string key = "sekret-key-0123456789";
  extra_env_ = {"LLM_API_KEY=" + key};
  Json leaky = task();
  leaky.set("x-" + key, 1).set("y-\x1b[2J", 2);
  EXPECT_EQ(start(run_arguments(leaky))->wait(), 0) << stderr_text();
  EXPECT_THAT(stderr_text(), HasSubstr("unknown key \"x-***\""));
  // What ends the command early, and what is wrong with its words, goes through main().
  EXPECT_EQ(run({"run", path("no-" + key + "\x1b[2J").string()}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("/no-***"));
  EXPECT_EQ(run({"run", write_task(task()), "--out", "/proc/" + key}), 2);
  EXPECT_EQ(run({"run", "--nonsense\x1b[2J"}), 2);
  EXPECT_THAT(stderr_text(), Not(HasSubstr(key)));
  EXPECT_THAT(stderr_text(), Not(HasSubstr("\x1b")));
}

TEST_F(CommandLine, ReplayServerNamesTheEndpointThatClientsTake) {
  write_file_atomic(
      path("cassette.json"),
      Json::object({{"version", 1}, {"entries", Json::Array{answer(Json("hello back"))}}}).dump());
  auto server = start({"llm", "serve-replay", path("cassette.json").string()});
  const Json ready = Json::try_parse(server->read_line().value_or("")).value_or(Json());
  const std::string url = ready["url"].string_or("none");
  EXPECT_EQ(ready["event"], Json("ready"));
  EXPECT_EQ(ready["endpoint"], Json(url + "/v1"));
  std::string output;
  EXPECT_EQ(
      run({"llm", "chat", "hello", "--llm-endpoint", ready["endpoint"].string_or("")}, &output), 0)
      << stderr_text();
  EXPECT_EQ(output, "hello back\n");
  server->signal(SIGTERM);
  EXPECT_EQ(server->wait(), 0);
}

TEST_F(CommandLine, DemoThatIsStoppedThenNothingIsCheckedAndItSaysSo) {
  auto demo = start({"demo", "--json"});
  ASSERT_TRUE(eventually([&] { return stderr_text().find("prepare") != std::string::npos; },
                         std::chrono::seconds{30}));
  demo->signal(SIGTERM);
  std::string output;
  EXPECT_EQ(demo->wait(&output, std::chrono::seconds{15}), 5) << stderr_text();
  const Json summary = Json::try_parse(output).value_or(Json());
  EXPECT_EQ(summary["stopped"], Json(true)) << output;
  EXPECT_EQ(summary["ok"], Json(false));
  EXPECT_TRUE(summary["checks"].is_null());

  demo = start({"demo"});
  demo->read_until("submitted");
  demo->signal(SIGINT);
  output.clear();
  EXPECT_EQ(demo->wait(&output, std::chrono::seconds{15}), 5) << stderr_text();
  EXPECT_THAT(output, HasSubstr("Stopped by a signal"));
  EXPECT_THAT(output, Not(HasSubstr("FAIL")));
}

}  // namespace
}  // namespace necrocode::test
