// Playbooks, as `necrocode run` uses them: which steps run, what reaches the shell, whose are used.
#include "e2e/run_fixture.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class RunWithPlaybook : public Run {
 protected:
  RunWithPlaybook() {
    make_remote({{"README", "hello\n"},
                 {"ci/own.yaml", "steps: [{name: Own, command: echo of-the-repository}]\n"}});
    serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  }
  std::string book(const std::string& text) {
    write_file_atomic(path("book.yaml"), text);
    return path("book.yaml").string();
  }
  Json named(const std::string& playbook) {
    Json given = task();
    given.erase("test_commands");
    given.set("playbook_path", playbook);
    return given;
  }
  std::string log() { return read_file(path("out/run.log"), 100'000); }
  Json report() { return Json::parse(read_file(path("out/tests.json"), 100'000)); }
};

TEST_F(RunWithPlaybook, StepsRunAsItsConditionsSayAndRetriesAreTold) {
  const std::string file = book(R"(
steps:
  - name: First
    command: test -e /tmp/again || { touch /tmp/again; touch again; test -e never; }
    condition: metadata.flaky == true
    else:
      - {name: Plain, command: grep -q good file.txt}
  - name: Both
    parallel:
      - {name: Left, command: echo left-was-here}
      - {name: Right, command: test "$LEVEL" = "e2e:1", env: {LEVEL: "{{ task_id }}"}}
  - name: Flaky
    command: test -e seen || { touch seen; exit 1; }
    retry_count: 1
)");
  Json given = task();
  given.erase("test_commands");
  given.set("metadata", Json::object({{"flaky", false}}));
  Json result;
  ASSERT_EQ(run_task(given, {"--playbook", file, "--no-baseline"}, &result), 0) << stderr_text();
  EXPECT_THAT(log(), HasSubstr("left-was-here"));
  EXPECT_EQ(report()["flaky"], Json(Json::Array{"Flaky"}));
  EXPECT_EQ(report()["skipped"], Json(Json::Array{"First"}));
  EXPECT_EQ(report()["commands"].size(), 5u);
}

TEST_F(RunWithPlaybook, AHostileTitleIsOneArgumentAndRunsNothing) {
  Json given = task();
  given.erase("test_commands");
  const std::string title = "x'; touch pwned; \"$(touch pwned)`touch pwned`";
  given.set("title", title);
  given.set("branch_name", "feature/x");
  const std::string file = book(R"(
steps:
  - name: One
    command: |
      count() { test $# = 1 && printf '%s\n' "$1" | grep -qF 'touch pwned'; }
      count {{ title }} && count "{{ title }}" && test ! -e pwned
)");
  ASSERT_EQ(run_task(given, {"--playbook", file, "--no-baseline"}), 0) << stderr_text() << log();
}

TEST_F(RunWithPlaybook, AFailingStepFailsTheRunAlsoWithoutFailFast) {
  const std::string file = book(R"(
steps:
  - {name: Bad, command: exit 3, fail_fast: false}
  - {name: After, command: echo came-here}
)");
  Json result;
  EXPECT_EQ(run_task(named("x"), {"--playbook", file}, &result), 1);
  EXPECT_THAT(result["error"]["reason"].string_or(""), HasSubstr("exit code 3"));
  EXPECT_THAT(log(), HasSubstr("came-here"));
  EXPECT_EQ(remote_branches(), "main");
}

TEST_F(RunWithPlaybook, AWrongOneIsToldBeforeAnythingIsBegun) {
  EXPECT_EQ(run_task(named("x"), {"--playbook", book("steps:\n  - nmae: x\n")}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("line 2: nmae is not known here"));
  EXPECT_EQ(model_calls(), 0U);
  EXPECT_EQ(run_task(named("/etc/passwd")), 2);
  EXPECT_EQ(model_calls(), 0U);
}

TEST_F(RunWithPlaybook, OfARepositoryOnlyWhereItIsTrusted) {
  Json given = named("ci/own.yaml");
  given.set("test_commands", Json::Array{"grep -q good file.txt"});
  ASSERT_EQ(run_task(given), 0) << stderr_text();
  EXPECT_THAT(log(), HasSubstr("the playbook \"ci/own.yaml\" is not used"));
  EXPECT_THAT(log(), Not(HasSubstr("of-the-repository")));
}

TEST_F(RunWithPlaybook, AStepThatWasRedBeforeDoesNotStandInTheWayOfTheTasksOwnTests) {
  const std::string file = book("steps: [{name: Lint, command: 'false'}]");
  Json result;
  ASSERT_EQ(run_task(task(), {"--playbook", file}, &result), 0) << stderr_text();
  EXPECT_EQ(result["red_at_base"], Json(Json::Array{"Lint", "grep -q good file.txt"}));
  EXPECT_EQ(report()["known_failures"], Json(Json::Array{"Lint"}));
  EXPECT_EQ(run_task(task(), {"--playbook", file, "--no-baseline"}), 1);
}

TEST_F(RunWithPlaybook, OfWhichNothingRanThenUnverified) {
  const std::string file = book("steps: [{name: A, command: 'true', condition: metadata.x == 1}]");
  Json given = named("x");
  given.set("metadata", Json::object({{"x", 2}}));
  Json result;
  EXPECT_EQ(run_task(given, {"--playbook", file}, &result), 12) << stderr_text();
  EXPECT_THAT(result["error"]["reason"].string_or(""), HasSubstr("conditions held"));
  EXPECT_EQ(model_calls(), 1U);
}

// What a task names as its base may be the work of a model.
TEST_F(RunWithPlaybook, OfATrustedRepositoryAsItsDefaultBranchHasItWhateverTheTaskNames) {
  const std::string clone = path("clone").string();
  git({"-C", clone, "checkout", "--quiet", "-b", "evil"});
  write_file_atomic(path("clone/ci/own.yaml"), "steps: [{name: Own, command: echo of-evil}]\n");
  git({"-C", clone, "commit", "--quiet", "-am", "x"});
  git({"-C", clone, "push", "--quiet", "origin", "evil"});
  write_file_atomic(path("config.yaml"),
                    "playbooks: {trusted_repositories: ['" + remote() + "']}\n");
  Json by_branch = named("ci/own.yaml");
  by_branch.set("base_branch", "evil");
  Json by_commit = named("ci/own.yaml");
  by_commit.set("base_commits", Json::Array{git({"-C", clone, "rev-parse", "evil"})});
  by_commit.set("branch_name", "feature/other");
  for (const Json& given : {by_branch, by_commit}) {
    ASSERT_EQ(run_task(given, {"--config", path("config.yaml").string()}), 0) << stderr_text();
    EXPECT_THAT(log(), HasSubstr("\nof-the-repository\n"));
    EXPECT_THAT(log(), Not(HasSubstr("\nof-evil\n")));
  }
}

TEST_F(RunWithPlaybook, OfATrustedRepositoryAsItStoodBeforeTheChange) {
  serve_model({answer(
      change({{"file.txt", "good\n"}, {"ci/own.yaml", "steps: [{name: Own, command: 'true'}]\n"}}),
      0)});
  write_file_atomic(path("config.yaml"),
                    "playbooks: {trusted_repositories: ['" + remote() + "']}\n");
  ASSERT_EQ(run_task(named("ci/own.yaml"), {"--config", path("config.yaml").string()}), 0)
      << stderr_text();
  EXPECT_THAT(log(), HasSubstr("\nof-the-repository\n"));
}

}  // namespace
}  // namespace necrocode::test
