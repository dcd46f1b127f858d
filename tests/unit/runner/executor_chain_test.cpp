// Which executors a task is for, and how a run goes from one to the next.
#include "executor_fixture.hpp"

namespace necrocode::runner {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// What one executor answers, round by round; the last answer again when there is no other.
struct Script {
  std::vector<std::function<void(const Assignment&)>> rounds;
  std::vector<std::string> asked;  // what it was told of earlier attempts, and failed tests
  std::size_t round = 0;
};

class ScriptedExecutor final : public TaskExecutor {
 public:
  explicit ScriptedExecutor(Script& script) : script_(script) {}
  std::string prompt(const Assignment& assignment) const override {
    return describe_task(assignment) + assignment.failed_tests;
  }
  Implementation implement(const Assignment& assignment, const CallContext&,
                           llm::Spending& spending, Transcript&) override {
    script_.asked.push_back(prompt(assignment));
    spending.count_calls(1);
    script_.rounds.at(std::min(script_.round++, script_.rounds.size() - 1))(assignment);
    Implementation answer;
    answer.changed_files = {"a.txt"};
    answer.answer_digest = test::read(assignment.root / "a.txt");
    return answer;
  }

 private:
  Script& script_;
};

std::function<void(const Assignment&)> writes(const std::string& text) {
  return [text](const Assignment& assignment) { test::write(assignment.root / "a.txt", text); };
}

template <class Error>
std::function<void(const Assignment&)> throws(const std::string& service = "",
                                              CallEnd end = CallEnd::kNone) {
  return [=](const Assignment&) {
    ErrorInfo info;
    info.service = service;
    info.end = end;
    throw Error("made to fail", std::move(info));
  };
}

class ExecutorChains : public RunsWithExecutors {
 protected:
  Script& executor(const std::string& name) {
    const bool is_new = !scripts_.contains(name);
    Script& script = scripts_[name];
    if (is_new) {
      makers_[name] = [&script](const ExecutorScope&) {
        return std::make_unique<ScriptedExecutor>(script);
      };
    }
    return script;
  }
  std::map<std::string, Script> scripts_;
};

TEST_F(ExecutorChains, OneThatPassesThenTheOthersAreNotAsked) {
  executor("llm").rounds = {writes("good\n")};
  executor("command:codex").rounds = {throws<ImplementationError>()};
  task_.executor = {"llm", "command:codex"};
  const RunResult result = run();
  EXPECT_EQ(result.exit_code, ExitCode::kDone) << result.to_json().pretty();
  EXPECT_EQ(result.executor, "llm");
  EXPECT_EQ(pushed("a.txt"), "good");
  EXPECT_THAT(scripts_["command:codex"].asked, IsEmpty());
}

TEST_F(ExecutorChains, TestsThatNeverPassThenTheNextBeginsFromTheBaseAndIsTold) {
  options_.max_repairs = 1;
  executor("llm").rounds = {[](const Assignment& assignment) {
                              test::write(assignment.root / "a.txt", "bad\n");
                              test::write(assignment.root / "left-behind", "x");
                            },
                            writes("worse\n")};
  std::string found, left;
  executor("command:codex").rounds = {[&](const Assignment& assignment) {
    found = test::read(assignment.root / "a.txt");
    left = std::filesystem::exists(assignment.root / "left-behind") ? "there" : "gone";
    EXPECT_THAT(assignment.failed_tests, IsEmpty());
    EXPECT_THAT(assignment.changed_files, IsEmpty());
    test::write(assignment.root / "a.txt", "good\n");
  }};
  task_.executor = {"llm", "command:codex"};
  const RunResult result = run();
  EXPECT_EQ(result.exit_code, ExitCode::kDone) << result.to_json().pretty();
  EXPECT_EQ(found, "alpha\n");
  EXPECT_EQ(left, "gone");
  EXPECT_EQ(result.executor, "command:codex");
  EXPECT_EQ(result.repairs, 1);
  EXPECT_EQ(result.model_calls, 3);
  EXPECT_THAT(result.files, SizeIs(1));
  EXPECT_THAT(scripts_["command:codex"].asked[0],
              HasSubstr("llm did not get there: the tests do not pass"));
  EXPECT_THAT(warnings(), Contains(HasSubstr("command:codex begins from the base")));
}

TEST_F(ExecutorChains, EachThenHasRepairsOfItsOwn) {
  options_.max_repairs = 1;
  executor("llm").rounds = {writes("bad\n"), writes("worse\n")};
  executor("command:codex").rounds = {writes("bad\n"), writes("good\n")};
  task_.executor = {"llm", "command:codex"};
  const RunResult result = run();
  EXPECT_EQ(result.exit_code, ExitCode::kDone) << result.to_json().pretty();
  EXPECT_EQ(result.repairs, 2);
  EXPECT_THAT(scripts_["command:codex"].asked[1], HasSubstr("a.txt is not good"));
}

TEST_F(ExecutorChains, ModelThatFailsForGoodThenTheNextAndTheLastOnesFailureIsTheRuns) {
  executor("llm").rounds = {throws<Unauthorized>("llm", CallEnd::kPermanent)};
  executor("command:codex").rounds = {throws<Unavailable>("llm", CallEnd::kExhausted)};
  executor("command:pi").rounds = {throws<ServiceError>("llm", CallEnd::kPermanent)};
  task_.executor = {"llm", "command:codex", "command:pi"};
  const RunResult result = run();
  EXPECT_EQ(result.exit_code, ExitCode::kModelUnusable);
  EXPECT_EQ(result.executor, "command:pi");
  EXPECT_THAT(scripts_["command:pi"].asked, SizeIs(1));
}

TEST_F(ExecutorChains, FailureThatNoOtherMendsThenTheRunEnds) {
  executor("llm").rounds = {throws<StorageError>()};
  executor("command:codex").rounds = {writes("good\n")};
  task_.executor = {"llm", "command:codex"};
  EXPECT_EQ(run().exit_code, ExitCode::kInternal);
  EXPECT_THAT(scripts_["command:codex"].asked, IsEmpty());
}

TEST_F(ExecutorChains, StoppedThenNoOtherBegins) {
  std::stop_source source;
  context_.stop = source.get_token();
  executor("llm").rounds = {[&](const Assignment&) {
    source.request_stop();
    throws<Unavailable>("llm", CallEnd::kExhausted)({task_, {}, {}, {}});
  }};
  executor("command:codex").rounds = {writes("good\n")};
  task_.executor = {"llm", "command:codex"};
  EXPECT_EQ(run().exit_code, ExitCode::kCancelled);
  EXPECT_THAT(scripts_["command:codex"].asked, IsEmpty());
}

TEST_F(ExecutorChains, SpendCapThenOverAllOfThem) {
  options_.spending.tokens = 100;
  makers_["llm"] = [](const ExecutorScope&) {
    class Spender final : public TaskExecutor {
      std::string prompt(const Assignment&) const override { return ""; }
      Implementation implement(const Assignment&, const CallContext&, llm::Spending& spending,
                               Transcript&) override {
        llm::Usage usage;
        usage.prompt_tokens = usage.total_tokens = 100;
        spending.add(usage);
        ErrorInfo info;
        info.service = "llm";
        info.end = CallEnd::kPermanent;
        throw ServiceError("refused", std::move(info));
      }
    };
    return std::make_unique<Spender>();
  };
  executor("command:codex").rounds = {writes("good\n")};
  task_.executor = {"llm", "command:codex"};
  const RunResult result = run();
  EXPECT_EQ(result.exit_code, ExitCode::kModelRefused);
  EXPECT_THAT(result.failure->reason, HasSubstr("cap of tokens"));
  EXPECT_THAT(scripts_["command:codex"].asked, IsEmpty());
}

TEST_F(ExecutorChains, UnknownOneThenRefusedByNameBeforeAnythingIsAsked) {
  executor("llm").rounds = {writes("good\n")};
  executor("command:codex").rounds = {writes("good\n")};
  task_.executor = {"llm", "command:codx"};
  const RunResult result = run();
  EXPECT_EQ(result.exit_code, ExitCode::kUsage);
  EXPECT_THAT(result.failure->reason,
              HasSubstr("\"command:codx\" is not known; known are command:codex, llm"));
  EXPECT_THAT(scripts_["llm"].asked, IsEmpty());
}

TEST_F(ExecutorChains, TasksOwnThenBeforeItsSpecBeforeItsSkillBeforeTheUsual) {
  for (const char* name : {"llm", "command:codex", "command:claude", "command:pi"}) executor(name);
  choices_.by_skill = {{"frontend", {"command:claude"}}};
  choices_.agent = "pi";
  const auto chain = [this] { return Executors(choices_, makers_).chain_of(task_); };
  EXPECT_THAT(chain(), ElementsAre("llm"));
  task_.required_skill = "frontend";
  EXPECT_THAT(chain(), ElementsAre("command:claude"));
  choices_.by_spec = {{"app", {"command:codex", "llm"}}};
  EXPECT_THAT(chain(), ElementsAre("command:codex", "llm"));
  task_.executor = {"command"};
  EXPECT_THAT(chain(), ElementsAre("command:pi")) << "the configured agent";
  choices_.agent.clear();
  try {
    chain();
    ADD_FAILURE() << "there is no agent";
  } catch (const TaskContextValidationError& error) {
    EXPECT_THAT(error.what(), HasSubstr("needs a configured agent"));
    EXPECT_THAT(error.what(), HasSubstr("command:claude, command:codex, command:pi, llm"));
  }
}

}  // namespace
}  // namespace necrocode::runner
