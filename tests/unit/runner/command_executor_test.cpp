// Agent programs, as shell scripts, in whole runs.
#include "necrocode/runner/command_executor.hpp"

#include "executor_fixture.hpp"
#include "necrocode/base/digest.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class CommandRuns : public RunsWithExecutors {
 protected:
  CommandRuns() {
    task_.executor = {"command:mine"};
    makers_["command:mine"] = [this](const ExecutorScope& scope) {
      return std::make_unique<CommandExecutor>(*adapters_.find("mine"), services_, scope);
    };
  }
  // The program's script; $1 is "first" or "again", $2 the prompt.
  void agent(const std::string& script) {
    const fs::path file = folder_.path() / "bin/agent";
    test::write(file, "#!/bin/sh\n" + script);
    fs::permissions(file, fs::perms::owner_all);
  }
  const std::vector<std::string>& argv(std::size_t round) {
    return sandbox_.agents.at(round).command.argv;
  }
  void last_exchange(llm::ExchangeClass how, int status = 0) {
    llm::ExchangeReport report;
    report.provider = "openai";
    report.model = "m-1";
    report.how = how;
    report.status = status;
    report.detail = "its words";
    meter_.metered.failure = report;
    meter_.metered.last = std::move(report);
  }

  test::Meter meter_;
  AgentServices services_{sandbox_, masker_, [this](llm::MeteredRunOptions options) {
                            meter_.opened.push_back(std::move(options));
                            return std::make_unique<test::FakeMeteredRun>(meter_);
                          }};
  agent::AgentAdapters adapters_{Json::object(
      {{"mine", Json::object({{"argv", Json::Array{(folder_.path() / "bin/agent").string(), "first",
                                                   "{prompt}"}},
                              {"resume", Json::Array{(folder_.path() / "bin/agent").string(),
                                                     "again", "{prompt}"}}})}})};
};

TEST_F(CommandRuns, ProgramThatMakesTheChangeThenPushedAndAccountedFor) {
  agent("echo good > a.txt; mkdir new && echo x > new/file; echo junk > built.o; echo Done.");
  meter_.metered.calls = 3;
  meter_.metered.usage.prompt_tokens = 900;
  meter_.metered.usage.completion_tokens = 100;
  meter_.metered.usage.total_tokens = 1000;
  meter_.metered.usage.cost_usd = 0.25;
  meter_.metered.last.emplace().model = "m-1";
  options_.spending.usd = 2;
  services_.daily_usd = 50;
  task_.test_commands.push_back("test ! -e built.o");  // ignored, and no part of the change
  const RunResult result = run();
  ASSERT_EQ(result.exit_code, ExitCode::kDone) << result.to_json().pretty() << log();
  EXPECT_EQ(pushed("a.txt") + pushed("new/file"), "goodx");
  EXPECT_EQ(result.files.size(), 2U);
  EXPECT_EQ(result.executor, "command:mine");
  EXPECT_EQ(result.model, "m-1");
  EXPECT_EQ(result.model_calls, 3);
  EXPECT_EQ(result.usage.total_tokens, 1000);
  EXPECT_EQ(result.usage.cost_usd, 0.25);
  ASSERT_THAT(meter_.opened, SizeIs(1));
  EXPECT_EQ(meter_.opened[0].caps.run_usd, 2);
  EXPECT_EQ(meter_.opened[0].caps.daily_usd, 50);
  EXPECT_EQ(meter_.opened[0].account.owner, "app");
  EXPECT_LE(meter_.opened[0].deadline, real_clock().steady_now() + task_.timeout);
  EXPECT_THAT(log(), HasSubstr("Done."));
  EXPECT_THAT(test::read(options_.run_dir / "transcript.jsonl"), HasSubstr("Done."));
}

TEST_F(CommandRuns, PromptThenTheTaskAndWhatProvesItButNoContents) {
  agent("echo good > a.txt");
  task_.readonly_files = {"src/**"};
  task_.dependencies = {"app:0"};
  run();
  const std::string& prompt = argv(0).at(2);
  for (const char* part : {"Task app:1: Make it good", "- a.txt is good", "grep -qx good a.txt",
                           "- src/**", "- app:0", "nobody answers questions"}) {
    EXPECT_THAT(prompt, HasSubstr(part));
  }
  EXPECT_THAT(prompt, Not(HasSubstr("alpha"))) << "the content of a.txt";
}

TEST_F(CommandRuns, FailedTestThenTheSameSessionIsAskedWithTheOutput) {
  agent(R"(echo "$1" >> "$HOME/rounds"
    if [ "$1" = first ]; then echo bad > a.txt; else cp "$HOME/rounds" src/rounds; echo good > a.txt; fi)");
  meter_.metered.calls = 2;
  meter_.metered.usage.total_tokens = meter_.metered.usage.prompt_tokens = 10;
  sandbox_.after_agent = [this] {
    meter_.metered.calls += 2;
    meter_.metered.usage.prompt_tokens += 10;
    meter_.metered.usage.total_tokens += 10;
  };
  const RunResult result = run();
  ASSERT_EQ(result.exit_code, ExitCode::kDone) << result.to_json().pretty() << log();
  EXPECT_EQ(result.repairs, 1);
  EXPECT_EQ(argv(1).at(1), "again");
  EXPECT_THAT(argv(1).at(2), HasSubstr("a.txt is not good"));
  EXPECT_THAT(argv(1).at(2), Not(HasSubstr("Task app:1"))) << "it knows its task";
  EXPECT_EQ(pushed("src/rounds"), "first\nagain") << "it has the home of the first round";
  EXPECT_THAT(meter_.opened, SizeIs(1)) << "one key, one cap for all rounds";
  EXPECT_EQ(result.model_calls, 6) << "the figures are sums; each round's is the difference";
  EXPECT_EQ(result.usage.total_tokens, 30);
  EXPECT_EQ(sandbox_.agents[0].gate, sandbox_.agents[1].gate) << "its files name the address";
}

TEST_F(CommandRuns, NothingChangedThenAskedAgainAndThenUnusable) {
  agent("echo I have done it.");
  const RunResult result = run();
  EXPECT_EQ(result.exit_code, ExitCode::kModelUnusable);
  EXPECT_EQ(result.reasks, 2);
  EXPECT_THAT(sandbox_.agents, SizeIs(3));
  EXPECT_THAT(argv(1).at(2), HasSubstr("could not be used: no file was changed"));
}

TEST_F(CommandRuns, RepairThatChangesNothingThenTheTestsHaveFailed) {
  agent("[ $1 = again ] || echo bad > a.txt");
  const RunResult result = run();
  EXPECT_EQ(result.exit_code, ExitCode::kTestsFailed);
  EXPECT_THAT(result.failure->reason, HasSubstr("repeats its answer"));
  EXPECT_THAT(sandbox_.agents, SizeIs(2));
}

TEST_F(CommandRuns, ReadOnlyFilesThenAsTheyWereAndAskedAgain) {
  task_.readonly_files = {"src/**"};
  agent(R"(echo good > a.txt
    if [ $1 = first ]; then echo cheat > src/b.txt; echo cheat > src/new; rm -f "link"; else cat src/b.txt > copy; ls src > list; fi)");
  const RunResult result = run();
  ASSERT_EQ(result.exit_code, ExitCode::kDone) << result.to_json().pretty() << log();
  EXPECT_EQ(result.reasks, 1);
  EXPECT_THAT(argv(1).at(2), HasSubstr("read-only, and are as before again: src/b.txt, src/new"));
  EXPECT_EQ(pushed("copy"), "beta");
  EXPECT_EQ(pushed("list"), "b.txt");
  EXPECT_EQ(pushed("src/b.txt"), "beta");
  EXPECT_EQ(pushed("a.txt"), "good") << "the rest of that round is kept";
}

TEST_F(CommandRuns, RepositoryInTheRepositoryThenNoChange) {
  agent(
      "git init -q inner && echo x > inner/file; echo good > a.txt; [ $1 = first ] || rm -rf "
      "inner");
  const RunResult result = run();
  EXPECT_EQ(result.exit_code, ExitCode::kDone) << result.to_json().pretty() << log();
  EXPECT_THAT(argv(1).at(2), HasSubstr("a git repository in \"inner\""));
}

TEST_F(CommandRuns, SecretInTheChangeThenRefused) {
  agent("echo good > a.txt; echo ghp_0123456789abcdefghijABCDEFGHIJ012345 > key");
  EXPECT_EQ(run().exit_code, ExitCode::kSecurity);
}

TEST_F(CommandRuns, LargeFileThenNotTaken) {
  agent("echo good > a.txt; truncate -s 33M big; [ $1 = first ] || rm big");
  EXPECT_EQ(run().exit_code, ExitCode::kDone) << log();
  EXPECT_THAT(argv(1).at(2), HasSubstr("\"big\" is larger than 32 MiB"));
}

TEST_F(CommandRuns, ServiceThatFailedForGoodThenItsClassIsTheRuns) {
  const std::vector<std::pair<llm::ExchangeClass, ExitCode>> classes = {
      {llm::ExchangeClass::kAuth, ExitCode::kModelRefused},
      {llm::ExchangeClass::kQuota, ExitCode::kModelRefused},
      {llm::ExchangeClass::kCap, ExitCode::kModelRefused},
      {llm::ExchangeClass::kRate, ExitCode::kModelUnavailable},
      {llm::ExchangeClass::kContext, ExitCode::kModelUnusable},
      {llm::ExchangeClass::kRequest, ExitCode::kModelUnusable},
      {llm::ExchangeClass::kProtocol, ExitCode::kModelUnusable},
      {llm::ExchangeClass::kUnavailable, ExitCode::kModelUnavailable}};
  for (const auto& [how, expected] : classes) {
    agent("exit 1");
    last_exchange(how);
    const RunResult result = run();
    EXPECT_EQ(result.exit_code, expected) << static_cast<int>(how) << log();
    EXPECT_THAT(result.failure->reason, HasSubstr("its words"));
    EXPECT_EQ(result.reasks, 0) << "the program has tried again itself";
  }
  for (const char* script : {"exit 0", "echo half > a.txt; exit 1"}) {
    agent(script);
    last_exchange(llm::ExchangeClass::kAuth);
    EXPECT_EQ(run().exit_code, ExitCode::kModelRefused) << script;
  }
}

TEST_F(CommandRuns, ServiceThatFailedAtLastButTheProgramWentOnThenTheTestsDecide) {
  last_exchange(llm::ExchangeClass::kUnavailable, 500);
  agent("echo good > a.txt");
  EXPECT_EQ(run().exit_code, ExitCode::kDone);
}

TEST_F(CommandRuns, ExitCodeOfAProgramThatLeftAChangeThenTheTestsDecide) {
  agent("echo good > a.txt; exit 9");
  EXPECT_EQ(run().exit_code, ExitCode::kDone);
}

TEST_F(CommandRuns, FailsAndLeavesNothingThenItsLastWordsAreTold) {
  agent("echo 'cannot read its config' >&2; exit 9");
  const RunResult result = run();
  EXPECT_EQ(result.exit_code, ExitCode::kModelUnusable);
  EXPECT_THAT(result.failure->reason, HasSubstr("ended with exit code 9 and changed nothing"));
  EXPECT_THAT(result.failure->reason, HasSubstr("cannot read its config"));
}

TEST_F(CommandRuns, TimeRunsOutThenTheTasksUnlessTheServiceWasSilent) {
  task_.timeout = std::chrono::seconds{3};
  agent("exec sleep 60");
  EXPECT_EQ(run().exit_code, ExitCode::kTaskTimeout);
  last_exchange(llm::ExchangeClass::kUnavailable);
  const RunResult result = run();
  EXPECT_EQ(result.exit_code, ExitCode::kModelUnavailable);
  EXPECT_THAT(result.failure->reason, HasSubstr("its words"));
}

TEST_F(CommandRuns, StoppedThenCancelled) {
  std::stop_source source;
  context_.stop = source.get_token();
  options_.observer = [&](const RunEvent& event) {
    if (event.data["phase"] == Json("implement")) source.request_stop();
  };
  agent("exec sleep 60");
  EXPECT_EQ(run().exit_code, ExitCode::kCancelled);
}

TEST_F(CommandRuns, LimitThatEndedItThenAResourceLimit) {
  sandbox_.limit_reached = "exceeded its memory limit of 64 MiB";
  agent("exit 137");
  const RunResult result = run();
  EXPECT_EQ(result.exit_code, ExitCode::kResourceLimit);
  EXPECT_THAT(result.failure->reason, HasSubstr("64 MiB"));
}

TEST_F(CommandRuns, ProgramThatIsNotInstalledThenToldBeforeAnotherIsPaid) {
  task_.executor = {"command:mine", "command:absent"};
  agent("echo good > a.txt");
  const agent::AgentAdapters absent(Json::object(
      {{"absent", Json::object({{"argv", Json::Array{"no-such-agent", "{prompt}"}}})}}));
  makers_["command:absent"] = [&](const ExecutorScope& scope) {
    return std::make_unique<CommandExecutor>(*absent.find("absent"), services_, scope);
  };
  const RunResult result = run();
  EXPECT_EQ(result.exit_code, ExitCode::kUsage);
  EXPECT_THAT(result.failure->reason, HasSubstr("\"no-such-agent\", the program of the agent"));
  EXPECT_THAT(sandbox_.agents, IsEmpty());
}

TEST_F(CommandRuns, LentCloneThenTheUsersFilesAreNoPartOfTheChange) {
  test::shell(remote_.user(), "echo mine > notes.txt && git init -q theirs && echo x > theirs/f");
  task_.slot_path = remote_.user();
  agent("echo good > a.txt; cat notes.txt > seen");
  const RunResult result = run();
  ASSERT_EQ(result.exit_code, ExitCode::kDone) << result.to_json().pretty() << log();
  EXPECT_EQ(pushed("seen"), "mine");
  EXPECT_EQ(result.files.size(), 2U);
  EXPECT_EQ(test::read(remote_.user() / "notes.txt"), "mine\n");
}

TEST_F(CommandRuns, LentCloneWhoseGitCannotBeCoveredThenNotEntered) {
  task_.slot_path = remote_.user();
  sandbox_.covers = false;
  agent("echo good > a.txt");
  const RunResult result = run();
  EXPECT_EQ(result.exit_code, ExitCode::kSecurity);
  EXPECT_THAT(result.failure->reason, HasSubstr("slot_path is not used"));
  EXPECT_THAT(sandbox_.agents, IsEmpty());
}

TEST_F(CommandRuns, PromptThatIsNoArgumentThenMadeOne) {
  task_.description = std::string(300'000, 'x');
  task_.acceptance_criteria = {"x" + std::string(1, '\0') + "the end"};
  agent("echo good > a.txt");
  ASSERT_EQ(run().exit_code, ExitCode::kDone) << log();
  EXPECT_LT(argv(0).at(2).size(), 128U * 1024);
  EXPECT_THAT(argv(0).at(2), HasSubstr("x the end"));
  EXPECT_THAT(argv(0).at(2), HasSubstr("nobody answers questions"));
}

TEST_F(CommandRuns, ItsOwnGitThenProtectedAndNothingOfItsHomeIsLeft) {
  agent("echo good > a.txt; git status --porcelain > status; echo $HOME > home");
  const RunResult result = run();
  ASSERT_EQ(result.exit_code, ExitCode::kDone) << log();
  EXPECT_THAT(pushed("status"), HasSubstr(" M a.txt"));
  ASSERT_THAT(sandbox_.agents, SizeIs(1));
  const process::SandboxedCommand& command = sandbox_.agents[0];
  EXPECT_THAT(command.protect, Contains(command.workspace / ".git"));
  EXPECT_FALSE(command.network);
  EXPECT_FALSE(fs::exists(pushed("home")));
}

TEST_F(CommandRuns, PlanThenItsPromptAndNoProgram) {
  options_.extent = RunExtent::kPlan;
  agent("echo good > a.txt");
  EXPECT_EQ(run().exit_code, ExitCode::kDone);
  EXPECT_THAT(sandbox_.agents, IsEmpty());
  EXPECT_THAT(events_.back().data["prompt"].string_or(""), HasSubstr("nobody answers questions"));
}

}  // namespace
}  // namespace necrocode::runner
