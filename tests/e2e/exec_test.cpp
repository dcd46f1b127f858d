// `necrocode exec` around small agents of our own, which speak to a replayed model through the
// metering proxy as real ones do: what it leaves, what it says, and with which code it ends.
#include <signal.h>
#include <unistd.h>

#include "e2e/run_fixture.hpp"
#include "support/api_document.hpp"

namespace necrocode::test {
namespace {

// An agent: asks the model once, writes what it says into file.txt.
constexpr std::string_view kAsk =
    "curl -sS --max-time 60 -o answer.json -w '%{http_code}' -H \"Authorization: Bearer "
    "$OPENAI_API_KEY\" -H 'Content-Type: application/json' "
    "-d "
    "'{\"model\":\"m\",\"max_tokens\":100,\"messages\":[{\"role\":\"user\",\"content\":\"go\"}]}' "
    "\"$OPENAI_BASE_URL/chat/completions\" > status; "
    "test \"$(cat status)\" = 200";

class Exec : public Run {
 protected:
  void SetUp() override {
    make_remote({{"README", "hello\n"}, {".gitignore", "answer.json\nstatus\n"}});
    extra_env_ = {"OPENAI_API_KEY=sk-real-key-0123456789"};
  }

  int exec(std::vector<std::string> options, const std::string& script, Json* result = nullptr) {
    return exec_argv(std::move(options), {"sh", "-c", script}, result);
  }

  int exec_argv(std::vector<std::string> options, std::vector<std::string> argv,
                Json* result = nullptr) {
    std::string output;
    const int code = start_exec(std::move(options), std::move(argv))->wait(&output);
    output_ = output;
    expect_declared(output);
    const Json read = result_of(output);
    EXPECT_EQ(read["type"], Json("result")) << output << stderr_text();
    EXPECT_EQ(read["exit_code"], Json(code));
    if (result) *result = read;
    return code;
  }

  // Each line of --json, with nothing beside what docs/run-events.schema.json names.
  static void expect_declared(const std::string& output) {
    static const Json schema = Json::parse(read_file(
        std::string(NECROCODE_SOURCE_DIR) + "/docs/run-events.schema.json", limits::kMiB));
    const ApiDocument checker{Json()};
    for (const std::string_view line : split(output, '\n')) {
      if (line.empty()) continue;
      const Json event = Json::parse(line);
      const std::string type = event["type"].string_or("");
      const Json* of_type = schema["$defs"].find(type == "result" ? "exec_result" : type);
      ASSERT_NE(of_type, nullptr) << line;
      std::vector<std::string> wrong;
      checker.validate(event, *of_type, type, true, wrong);
      EXPECT_TRUE(wrong.empty()) << join(wrong, "\n") << "\n" << line;
    }
  }

  static Json result_of(const std::string& output) {
    std::string last;
    for (const std::string_view line : split(output, '\n')) {
      if (!line.empty()) last = line;
    }
    return Json::try_parse(last).value_or(Json());
  }

  std::unique_ptr<Program> start_exec(std::vector<std::string> options,
                                      std::vector<std::string> argv) {
    // Started by a shell, which goes into the clone first.
    std::vector<std::string> arguments = {"/bin/sh",
                                          "-c",
                                          "cd \"$0\" && " + set_path_ + " exec \"$@\"",
                                          folder_in_clone_.string(),
                                          NECROCODE_BINARY,
                                          "exec",
                                          "--json",
                                          "--data",
                                          path("data").string()};
    if (folder_in_clone_ == path("clone")) {
      arguments.insert(arguments.end(), {"--out", path("out").string()});
    }
    if (model_) write_file_atomic(path("config.yaml"), config());
    if (model_) arguments.insert(arguments.end(), {"--config", path("config.yaml").string()});
    arguments.insert(arguments.end(), options.begin(), options.end());
    arguments.emplace_back("--");
    arguments.insert(arguments.end(), argv.begin(), argv.end());
    return std::make_unique<Program>(arguments, environment(), path("stderr"));
  }

  std::string config() const {
    return "providers: {openai: {base_url: \"" + endpoint() +
           "\", api_key_env: OPENAI_API_KEY}}\n"
           "prices: {m: {input: 1, output: 10}}\n" +
           more_config_;
  }

  std::string clone() const { return path("clone").string(); }
  std::string kept(const std::string& name) const {
    return fs::exists(path("out") / name) ? read_file(path("out") / name, limits::kMiB) : "";
  }
  // By prices in config(): $0.001 each.
  Json good() const {
    const Json usage =
        Json::object({{"prompt_tokens", 100}, {"completion_tokens", 90}, {"total_tokens", 190}});
    return Json::object(
        {{"times", 0}, {"answer", Json::object({{"content", "good"}, {"usage", usage}})}});
  }

  fs::path folder_in_clone_ = path("clone");
  std::string set_path_;  ///< "PATH=…", for the shell
  std::string more_config_;
  std::string output_;
};

TEST_F(Exec, SolvesThenTheChangeStaysTheTestsPassAndTheBranchIsPushed) {
  serve_model({good()});
  Json result;
  const int code = exec({"--test", "grep -q good file.txt", "--push", "fix/it", "--cap-usd", "1"},
                        std::string(kAsk) + " && echo good > file.txt", &result);
  EXPECT_EQ(code, 0) << result.pretty() << stderr_text();
  EXPECT_EQ(read_file(path("clone/file.txt"), 100), "good\n");
  EXPECT_EQ(git({"-C", remote(), "show", "fix/it:file.txt"}), "good");
  EXPECT_EQ(git({"-C", remote(), "rev-parse", "fix/it"}), result["push"]["commit"].string_or(""));
  EXPECT_EQ(git({"-C", clone(), "status", "--porcelain"}), "?? file.txt");
  EXPECT_EQ(result["provider"]["calls"], Json(1));
  EXPECT_NEAR(result["provider"]["usage"]["cost_usd"].as_double().value_or(0), 0.001, 1e-9);
  EXPECT_EQ(result["files"].size(), 1U);
  EXPECT_NE(kept("diff.patch").find("+good"), std::string::npos);
  EXPECT_EQ(Json::parse(kept("result.json"))["exit_code"], Json(0));
}

TEST_F(Exec, TheRealKeyIsNowhereAndTheHomeIsGone) {
  serve_model({good()});
  Json result;
  exec({"--record"},
       std::string(kAsk) + "; env; cat /proc/*/environ; echo mine > ~/mine; echo good > file.txt",
       &result);
  for (const char* name : {"run.log", "diff.patch", "exchanges.jsonl", "result.json"}) {
    EXPECT_EQ(kept(name).find("sk-real-key"), std::string::npos) << name;
  }
  EXPECT_NE(kept("exchanges.jsonl").find("chat/completions"), std::string::npos);
  EXPECT_EQ(output_.find("sk-real-key"), std::string::npos);
  for (const auto& entry : fs::recursive_directory_iterator(path("out"))) {
    EXPECT_NE(entry.path().filename(), "mine");
  }
}

TEST_F(Exec, NothingDoneThoughItSaysSoThenTheTestsDecide) {
  Json result;
  EXPECT_EQ(exec({"--test", "grep -q good file.txt"}, "echo done; exit 0", &result), 1);
  EXPECT_EQ(result["program"]["exit_code"], Json(0));
}

TEST_F(Exec, NoTestThenUnverified) {
  EXPECT_EQ(exec({}, "echo x > file.txt"), 12);
}

TEST_F(Exec, AProgramThatFailsButLeavesAGoodChangeIsDone) {
  EXPECT_EQ(exec({"--test", "grep -q good file.txt"}, "echo good > file.txt; exit 3"), 0);
}

TEST_F(Exec, ProviderFailuresGiveTheirClass) {
  struct Case {
    int status;
    Json body;
    int code;
  };
  const auto error = [](const char* code) {
    return Json::object({{"error", Json::object({{"message", "no"}, {"code", code}})}});
  };
  for (const auto& [status, body, code] :
       {Case{401, error("invalid_api_key"), 7}, Case{402, error("insufficient_quota"), 7},
        Case{400, error("context_length_exceeded"), 8}, Case{429, error("rate_limit_exceeded"), 9},
        Case{500, error("server_error"), 9}, Case{200, Json("<html>"), 8}}) {
    serve_model({raw_answer(status, body, 0)});
    Json result;
    EXPECT_EQ(exec({"--test", "true"}, kAsk.data(), &result), code)
        << status << result.pretty() << stderr_text();
  }
}

TEST_F(Exec, TimeThenItsOwnCodeAndNothingIsLeft) {
  Json result;
  const std::string mark = "sleep 86421";
  EXPECT_EQ(exec({"--timeout", "2s", "--test", "true"},
                 "(setsid " + mark + " &) ; echo begun > file.txt; " + mark, &result),
            4);
  EXPECT_EQ(processes_with("86421"), 0);
  EXPECT_EQ(result["program"]["end"], Json("timed_out"));
  EXPECT_NE(kept("diff.patch").find("+begun"), std::string::npos) << "what came of it is kept";
}

TEST_F(Exec, TheProviderFailsAndThenTheTimePassesThenTheProvidersClass) {
  serve_model({raw_answer(500, Json::object({{"error", "down"}}), 0)});
  EXPECT_EQ(exec({"--timeout", "3s"}, std::string(kAsk) + "; sleep 86422"), 9);
}

TEST_F(Exec, ADaemonIsGoneWhenTheProgramIs) {
  EXPECT_EQ(exec({"--test", "true"}, "setsid sh -c 'sleep 86423' & echo x > file.txt"), 0);
  EXPECT_EQ(processes_with("86423"), 0);
}

TEST_F(Exec, InputIsEmptyAndThereIsNoTerminal) {
  EXPECT_EQ(exec({"--test", "grep -q end file.txt"},
                 "if read line; then exit 9; fi; (echo x > /dev/tty) 2>/dev/null && exit 8; "
                 "echo end > file.txt"),
            0);
}

TEST_F(Exec, WritesOutsideThenNothingOfItIsThere) {
  const std::string outside = path("outside").string();
  fs::create_directories(path("home"));
  exec({"--test", "true"},
       "echo x > " + outside + "; echo x > " + path("home/x").string() +
           "; echo x > ../x; echo x > /tmp/necrocode-e2e-x; echo ok > file.txt");
  EXPECT_FALSE(fs::exists(outside));
  EXPECT_FALSE(fs::exists(path("home/x")));
  EXPECT_FALSE(fs::exists(path("x")));
  EXPECT_FALSE(fs::exists("/tmp/necrocode-e2e-x"));
  EXPECT_TRUE(fs::exists(path("clone/file.txt")));
}

TEST_F(Exec, NoNetworkButTheProxy) {
  serve_model({good()});
  // The model itself, which listens on this machine's loopback, is out of reach.
  EXPECT_EQ(exec({"--test", "grep -q none file.txt"},
                 "curl -s --max-time 5 " + endpoint() + "/models && exit 1; echo none > file.txt"),
            0);
}

TEST_F(Exec, PlantedHooksAndConfigurationNeverReachTheClone) {
  const std::string config_before = read_file(path("clone/.git/config"), limits::kMiB);
  Json result;
  EXPECT_EQ(exec({"--test", "true"},
                 "mkdir -p .git/hooks; printf '#!/bin/sh\\ntouch /tmp/owned\\n' > "
                 ".git/hooks/post-checkout; chmod +x .git/hooks/post-checkout; "
                 "git config core.fsmonitor 'touch /tmp/owned'; echo x > file.txt",
                 &result),
            0)
      << result.pretty();
  EXPECT_EQ(read_file(path("clone/.git/config"), limits::kMiB), config_before);
  EXPECT_FALSE(fs::exists(path("clone/.git/hooks/post-checkout")));
  EXPECT_GE(result["git_put_back"].size(), 2U) << result.pretty();
}

TEST_F(Exec, ItsCommitsComeOverToTheBranchThatIsCheckedOut) {
  Json result;
  EXPECT_EQ(exec({"--test", "true"},
                 "echo one > one.txt && git add one.txt && git commit -q -m one && "
                 "git log --oneline | wc -l > count.txt",
                 &result),
            0)
      << result.pretty() << kept("run.log");
  EXPECT_EQ(git({"-C", clone(), "log", "--format=%s", "-1"}), "one");
  EXPECT_EQ(result["commits"]["count"], Json(1));
  EXPECT_EQ(git({"-C", clone(), "status", "--porcelain"}), "?? count.txt");
  EXPECT_EQ(trim(read_file(path("clone/count.txt"), 100)), "2");
}

TEST_F(Exec, TheUsersDirtyWorkSurvivesAndIsNoPartOfThePush) {
  write_file_atomic(path("clone/README"), "changed by me\n");
  write_file_atomic(path("clone/mine.txt"), "untracked\n");
  Json result;
  EXPECT_EQ(exec({"--test", "true", "--push", "theirs"}, "echo x > file.txt; rm mine.txt", &result),
            10)
      << "it changed what was dirty";
  EXPECT_NE(kept("users-work.patch").find("+untracked"), std::string::npos);
  write_file_atomic(path("clone/mine.txt"), "untracked\n");
  EXPECT_EQ(exec({"--test", "true", "--push", "theirs"}, "echo y > other.txt", &result), 0)
      << result.pretty();
  EXPECT_EQ(git({"-C", remote(), "diff", "--name-only", "main", "theirs"}), "other.txt");
  EXPECT_EQ(read_file(path("clone/README"), 100), "changed by me\n");
  EXPECT_EQ(exec({"--require-clean", "--test", "true"}, "touch began", &result), 10);
  EXPECT_FALSE(fs::exists(path("clone/began")));
}

TEST_F(Exec, ProtectedFilesAreAsBeforeWhenTheTestsRun) {
  write_file_atomic(path("clone/check.sh"), "grep -q good file.txt\n");
  git({"-C", clone(), "add", "-A"});
  git({"-C", clone(), "commit", "-q", "-m", "check"});
  Json result;
  EXPECT_EQ(exec({"--test", "sh check.sh"}, "echo true > check.sh", &result), 0);
  EXPECT_EQ(result["tests_changed"], Json(std::vector<std::string>{"check.sh"}));
  git({"-C", clone(), "checkout", "-q", "."});
  EXPECT_EQ(exec({"--test", "sh check.sh", "--protect", "*.sh"}, "echo true > check.sh", &result),
            1);
  EXPECT_EQ(result["protected_restored"], Json(std::vector<std::string>{"check.sh"}));
  EXPECT_EQ(result["tests_changed"], Json(std::vector<std::string>{"check.sh"}));
  EXPECT_EQ(read_file(path("clone/check.sh"), 100), "grep -q good file.txt\n");
}

TEST_F(Exec, RepairsGoBackWithTheFailingOutput) {
  Json result;
  EXPECT_EQ(exec({"--test", "cat file.txt; grep -q good file.txt", "--repairs", "1"},
                 "if [ -n \"$NECROCODE_FAILED_TESTS\" ]; then grep -q 'bad beginning' "
                 "\"$NECROCODE_FAILED_TESTS\" && echo good > file.txt; else echo bad beginning > "
                 "file.txt; fi",
                 &result),
            0)
      << result.pretty();
  EXPECT_EQ(result["repairs"], Json(1));
}

TEST_F(Exec, ASecretInTheChangeIsNeitherTestedNorPushed) {
  extra_env_.emplace_back("GIT_TOKEN=ghp_0123456789abcdef");
  Json result;
  EXPECT_EQ(
      exec({"--test", "touch ran", "--push", "x"},
           "printf ghp_0123456789; :>a; printf 'ghp_0123456789%s' abcdef > file.txt", &result),
      6);
  EXPECT_FALSE(fs::exists(path("clone/ran")));
  EXPECT_EQ(remote_branches(), "main");
  EXPECT_EQ(kept("diff.patch").find("ghp_0123456789abcdef"), std::string::npos);
}

TEST_F(Exec, BadCommandLinesAreToldAndNothingBegins) {
  for (const std::vector<std::string>& options : {std::vector<std::string>{"--cap-usd", "0"},
                                                  {"--cap-usd", "-1"},
                                                  {"--cap-usd", "nan"},
                                                  {"--cap-usd", "lots"},
                                                  {"--daily-cap-usd", "inf"},
                                                  {"--timeout", "soon"},
                                                  {"--memory", "many"},
                                                  {"--memory", "1k"},
                                                  {"--pids", "1"},
                                                  {"--push", "-f"},
                                                  {"--test", " "}}) {
    EXPECT_EQ(exec(options, "touch began"), 2) << join(options, " ");
  }
  EXPECT_EQ(exec_argv({}, {"no-such-program-anywhere"}), 2);
  EXPECT_FALSE(fs::exists(path("clone/began")));
  EXPECT_EQ(run({"exec", "--json"}), 2) << "without a program";
  EXPECT_EQ(run({"exec", "true"}), 2) << "without \"--\"";
  EXPECT_THAT(stderr_text(), testing::HasSubstr("behind \"--\""));
  for (const char* flag : {"--push", "--cap-usd", "--prices", "--memory", "--out"}) {
    EXPECT_EQ(run({"exec", flag, "", "--", "true"}), 2)
        << flag << ": of a variable that is not set";
  }
}

TEST_F(Exec, OutInsideOfTheCloneThenRefusedBeforeAnythingIsMadeThere) {
  write_file_atomic(path("clone/run.log"), "mine\n");
  for (const char* out : {".", ".git", "sub/x"}) {
    const std::string folder = (path("clone") / out).string();
    auto program = std::make_unique<Program>(
        std::vector<std::string>{"/bin/sh", "-c", "cd \"$0\" && exec \"$@\"", clone(),
                                 NECROCODE_BINARY, "exec", "--data", path("data").string(), "--out",
                                 folder, "--", "true"},
        environment(), path("stderr"));
    EXPECT_EQ(program->wait(), 2) << out << stderr_text();
  }
  EXPECT_EQ(read_file(path("clone/run.log"), 100), "mine\n");
  EXPECT_EQ(git({"-C", clone(), "status", "--porcelain"}), "?? run.log");
}

TEST_F(Exec, ACloneOfAnotherUserThenToldBeforeTheProgramBegins) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give a folder away";
  ASSERT_EQ(::chown(clone().c_str(), 65534, 65534), 0);
  Json result;
  EXPECT_EQ(exec({"--test", "true"}, "touch began", &result), 10);
  EXPECT_THAT(result["error"]["reason"].string_or(""), testing::HasSubstr("user 65534"));
}

TEST_F(Exec, OutsideOfACloneThenTheUsageIsWrong) {
  fs::create_directories(path("nowhere"));
  folder_in_clone_ = path("nowhere");
  EXPECT_EQ(exec({}, "true"), 2);
}

TEST_F(Exec, TheCapStopsBeforeTheCallThatWouldPassIt) {
  serve_model({good()});
  // A call costs $0.001, and might cost $0.0021 (docs/proxy.md): there is room for three.
  Json result;
  EXPECT_EQ(exec({"--cap-usd", "0.0045", "--test", "false"},
                 "for i in $(seq 100); do " + std::string(kAsk) + " || exit 1; done", &result),
            7);
  EXPECT_GE(result["provider"]["refused"].as_int().value_or(0), 1);
  EXPECT_EQ(result["provider"]["calls"], Json(3));
  EXPECT_NEAR(result["provider"]["usage"]["cost_usd"].as_double().value_or(1), 0.003, 1e-9);
  EXPECT_EQ(model_calls(), static_cast<std::size_t>(*result["provider"]["calls"].as_int()));
}

TEST_F(Exec, AModelWithoutAPriceIsNotAskedUnderACap) {
  serve_model({good()});
  more_config_ = "llm: {model: m}\n";
  Json result;
  std::string ask(kAsk);
  ask.replace(ask.find("\"model\":\"m\""), 11, "\"model\":\"dear\"");
  EXPECT_EQ(exec({"--cap-usd", "1", "--test", "false"}, ask, &result), 7) << result.pretty();
  EXPECT_EQ(model_calls(), 0U);
}

TEST_F(Exec, OutputWithoutEndIsCutAndNothingElse) {
  Json result;
  EXPECT_EQ(exec({"--test", "true"}, "head -c 80000000 /dev/zero | tr '\\0' x; echo x > file.txt",
                 &result),
            0);
  EXPECT_GE(result["program"]["output_bytes"].as_int().value_or(0), 80'000'000);
  EXPECT_LT(fs::file_size(path("out/run.log")), limits::kRunLogBytes + 4096);
}

TEST_F(Exec, MemoryBeyondItsLimitIsALimit) {
  Json result;
  const int code = exec({"--memory", "64m", "--test", "true"},
                        "exec python3 -c 'x = bytearray(1 << 30)'", &result);
  // With rlimits nobody tells which failure they caused: the tests decide then.
  EXPECT_TRUE(code == 11 || output_.find("cgroup") == std::string::npos) << result.pretty();
}

TEST_F(Exec, StoppedBySigtermThenCancelledAndWhatItDidIsKept) {
  auto program = start_exec({"--test", "true"}, {"sh", "-c", "echo x > file.txt; sleep 86424"});
  ASSERT_TRUE(eventually([&] { return fs::exists(path("clone/file.txt")); }));
  program->signal(SIGTERM);
  std::string output;
  EXPECT_EQ(program->wait(&output), 5);
  EXPECT_EQ(processes_with("86424"), 0);
  EXPECT_NE(kept("diff.patch").find("+x"), std::string::npos);
}

TEST_F(Exec, SignalledTwiceForOneWishThenItStillEndsInOrder) {
  auto program = start_exec({"--test", "true"}, {"sh", "-c", "echo x > file.txt; sleep 86426"});
  ASSERT_TRUE(eventually([&] { return fs::exists(path("clone/file.txt")); }));
  program->signal(SIGTERM);  // as timeout(1) does: to us, and then to our group
  program->signal(SIGTERM);
  std::string output;
  EXPECT_EQ(program->wait(&output), 5);
  EXPECT_NE(kept("diff.patch").find("+x"), std::string::npos);
}

TEST_F(Exec, ABranchThatIsThereIsNeverPushedOver) {
  EXPECT_EQ(exec({"--test", "true", "--push", "shared"}, "echo alice > alice.txt"), 0);
  const std::string first = git({"-C", remote(), "rev-parse", "shared"});
  Json result;
  EXPECT_EQ(exec({"--test", "true", "--push", "shared"}, "touch began", &result), 10);
  EXPECT_FALSE(fs::exists(path("clone/began"))) << "looked at before anything is spent";
  EXPECT_EQ(git({"-C", remote(), "rev-parse", "shared"}), first);
}

TEST_F(Exec, AFileThatEndsItsOwnFolderIsInTheWayOfNothing) {
  EXPECT_EQ(exec({"--test", "grep -q x file.txt"}, "echo x > file.txt; chmod 0 ."), 0);
}

TEST_F(Exec, AProgramThatAnAdapterKnowsKeepsItsArgumentsInARepair) {
  fs::create_directories(path("tools"));
  write_file_atomic(path("tools/claude"),
                    "#!/bin/sh\nprintf '%s|' \"$@\" >> arguments.txt\necho >> arguments.txt\n"
                    "case \"$*\" in *'Mend it'*) echo good > file.txt;; esac\n",
                    0755);
  Json result;
  EXPECT_EQ(
      exec_argv({"--test", "grep -q good file.txt", "--repairs", "1"},
                {path("tools/claude").string(), "--model", "opus", "-p", "do the thing"}, &result),
      0)
      << result.pretty() << kept("run.log");
  const std::string arguments = read_file(path("clone/arguments.txt"), limits::kMiB);
  EXPECT_TRUE(arguments.starts_with("--model|opus|-p|do the thing|\n--model|opus|-p|do the thing"))
      << arguments;
}

// Where there is no bubblewrap the next tier is Landlock's, if the kernel has it.
TEST_F(Exec, WithoutBubblewrapThenInTheNextTierWhichSaysWhatItCannotGive) {
  fs::create_directories(path("programs"));
  for (const char* name : {"sh", "git", "grep", "cat", "curl"}) {
    for (const char* folder : {"/bin", "/usr/bin"}) {
      const fs::path program = fs::path(folder) / name;
      if (fs::exists(program) && !fs::exists(path("programs") / name)) {
        fs::create_symlink(program, path("programs") / name);
      }
    }
  }
  set_path_ = "PATH=" + path("programs").string();
  serve_model({good()});
  Json result;
  const int code = exec({"--test", "grep -q good file.txt", "--push", "weak"},
                        std::string(kAsk) + " || exit 1; cat " + path("data").string() +
                            "/spending.db && exit 1; echo x > .git/hooks/post-checkout; "
                            "echo good > file.txt; git add file.txt; git commit -qm one",
                        &result);
  if (code == 6) GTEST_SKIP() << "no Landlock here: " << result["error"]["reason"].string_or("");
  EXPECT_EQ(code, 0) << result.pretty() << kept("run.log");
  EXPECT_EQ(result["sandbox"]["name"], Json("landlock"));
  EXPECT_GE(result["sandbox"]["missing"].size(), 3U);
  EXPECT_EQ(result["provider"]["calls"], Json(1));
  EXPECT_FALSE(fs::exists(path("clone/.git/hooks/post-checkout")));
  EXPECT_EQ(result["git_put_back"].size(), 1U) << result.pretty();
  EXPECT_EQ(git({"-C", remote(), "show", "weak:file.txt"}), "good");
}

TEST_F(Exec, KilledThenNothingIsLeftAndTheCloneIsWhole) {
  auto program = start_exec(
      {"--test", "true"},
      {"sh", "-c", "git commit -q --allow-empty -m one; echo x > file.txt; sleep 86425"});
  ASSERT_TRUE(eventually([&] { return fs::exists(path("clone/file.txt")); }));
  program->signal(SIGKILL);
  std::string output;
  program->wait(&output);
  EXPECT_TRUE(eventually([] { return processes_with("86425") == 0; }));
  EXPECT_EQ(git({"-C", clone(), "log", "--format=%s"}), "start");
  EXPECT_EQ(git({"-C", clone(), "status", "--porcelain"}), "?? file.txt");
  // The next one finds the folder free, and removes what is left of the home.
  EXPECT_EQ(exec({"--test", "true"}, "true"), 0);
  for (const auto& entry : fs::directory_iterator(path("out"))) {
    EXPECT_FALSE(entry.path().filename().string().starts_with(".necrocode-work-"));
  }
}

TEST_F(Exec, TenSharingADailyCapNeverPassItTogether) {
  serve_model({good()});
  std::vector<std::unique_ptr<Program>> programs;
  for (int n = 0; n < 10; ++n) {
    folder_in_clone_ = path("clone-" + std::to_string(n));
    git({"clone", "--quiet", remote(), folder_in_clone_.string()});
    programs.push_back(start_exec(
        {"--daily-cap-usd", "0.01", "--test", "false"},
        {"sh", "-c", "for i in 1 2 3 4 5; do " + std::string(kAsk) + " || exit 1; done"}));
  }
  double spent = 0;
  int refused = 0;
  for (const auto& program : programs) {
    std::string output;
    program->wait(&output);
    const Json result = result_of(output);
    spent += result["provider"]["usage"]["cost_usd"].as_double().value_or(0);
    refused += static_cast<int>(result["provider"]["refused"].as_int().value_or(0));
  }
  EXPECT_LE(spent, 0.01);
  EXPECT_GT(spent, 0.003) << "and most of it could be used";
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace necrocode::test
