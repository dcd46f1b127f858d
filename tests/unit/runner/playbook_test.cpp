#include "necrocode/runner/playbook.hpp"

#include <gmock/gmock.h>

#include <mutex>

#include "necrocode/base/errors.hpp"
#include "necrocode/runner/playbook_engine.hpp"

namespace necrocode::runner {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

const Json& values() {
  static const Json kValues = Json::parse(
      R"x({"task_id":"app:1","title":"it's; id $(id) \"q\" `id`","branch":"feature/x",
           "metadata":{"team":"core","list":[1,2]}})x");
  return kValues;
}

std::string problem(const std::string& text) {
  try {
    read_playbook(text, "book.yaml");
    return {};
  } catch (const PlaybookExecutionError& error) {
    return error.summary();
  }
}

/// Runs the playbook without a process: what ran, in order, as "name#attempt".
struct Ran {
  std::vector<std::string> commands;
  std::vector<StepReport> reports;
  bool passed = false;

  Ran(const std::string& text, const std::vector<std::string>& failing,
      const std::set<std::string>& red_before = {}) {
    std::mutex mutex;
    run_playbook(
        read_playbook(text, "book.yaml"), values(),
        [&](const std::string& step) { return red_before.contains(step); },
        [&](const StepCommand& command) {
          const std::string told = command.name + "#" + std::to_string(command.attempt);
          const std::lock_guard lock(mutex);
          commands.push_back(told);
          return std::find(failing.begin(), failing.end(), told) == failing.end();
        },
        reports);
    passed = all_passed(reports);
  }
};

TEST(Playbooks, AreReadWithAllTheirParts) {
  const Playbook book = read_playbook(R"(
name: Standard
description: what we run on everything
steps:
  - name: Lint
    command: make lint
    fail_fast: false
    timeout_seconds: 30
    retry_count: 2
    working_directory: web
    junit: [web/out/*.xml, "**/TEST-*.xml"]
    env:
      CI: "1"
  - name: Checks
    parallel:
      - {name: Unit, command: make unit, junit: out/unit.xml}
      - {name: Docs, command: make docs, condition: metadata.team == 'core'}
  - name: Slow
    condition: steps.lint.passed and not steps.docs.skipped
    command: make slow
    else:
      - {name: Note, command: echo not linted}
)",
                                      "book.yaml");
  EXPECT_EQ(book.name, "Standard");
  ASSERT_EQ(book.steps.size(), 3u);
  EXPECT_FALSE(book.steps[0].fail_fast);
  EXPECT_EQ(book.steps[0].timeout, std::chrono::seconds(30));
  EXPECT_EQ(book.steps[0].retry_count, 2);
  EXPECT_EQ(book.steps[0].working_directory, "web");
  EXPECT_EQ(book.steps[0].env.size(), 1u);
  EXPECT_THAT(book.steps[0].junit, ElementsAre("web/out/*.xml", "**/TEST-*.xml"));
  EXPECT_EQ(book.steps[1].parallel.size(), 2u);
  EXPECT_THAT(book.steps[1].parallel[0].junit, ElementsAre("out/unit.xml"));
  EXPECT_EQ(book.steps[2].otherwise.at(0).name, "Note");
}

TEST(Playbooks, NameEveryDefectWithItsLine) {
  EXPECT_EQ(problem(R"(steps:
  - name: One
    comand: make
  - name: Two
    command: make
    timeout_seconds: "5"
  - name: Two
    command: make
    timeout_seconds: 0
    retry_count: -1
  - name: Three
    command: make {{ nobody }}
    condition: branch = 'x'
)"),
            "book.yaml: line 2: command is required (or a parallel group); "
            "line 3: comand is not known here; "
            "line 6: timeout_seconds must be an integer, not a string; "
            "line 7: name another step has this name, or it has no letter or digit; "
            "line 9: timeout_seconds must be between 1 and 604800, is 0; "
            "line 10: retry_count must be between 0 and 10, is -1; "
            "line 12: command there is no value named \"nobody\"; known are task_id, spec_name, "
            "number, title, description, branch, base_branch, base_commit, required_skill, "
            "metadata, steps (did you mean \"number\"?); "
            "line 13: condition column 8: equality is written ==");
}

TEST(Playbooks, ThatCannotMeanAnythingAreRefused) {
  for (const auto& [text, wanted] : std::vector<std::pair<std::string, std::string>>{
           {"", "a playbook is a mapping"},
           {"- name: x", "a playbook is a mapping"},
           {"name: x", "steps is required"},
           {"steps: []", "steps must hold a step"},
           {"steps: [{name: a, command: b, else: [{name: c, command: d}]}]",
            "else needs a condition beside it"},
           {"steps: [{name: a, parallel: []}]", "parallel must hold a step"},
           {"steps: [{name: a, command: x, parallel: [{name: b, command: c}]}]",
            "command goes with each step"},
           {"steps: [{name: a, parallel: [{name: b, parallel: [{name: c, command: d}]}]}]",
            "does not go within a parallel group"},
           {"steps: [{name: a, parallel: [{name: b, command: x}, {name: c, command: y, "
            "condition: steps.b.passed}]}]",
            "no step before this one is named \"b\""},
           {"steps: [{name: a, command: b, condition: steps.a.passed}]",
            "no step before this one is named \"a\""},
           {"steps: [{name: a, command: b, working_directory: ../x}]", "inside the repository"},
           {"steps: [{name: a, command: b, working_directory: /x}]", "inside the repository"},
           {"steps: [{name: a, command: b, junit: ../x.xml}]",
            "junit \"../x.xml\" must be a path or glob inside the repository"},
           {"steps: [{name: a, command: b, junit: [x.xml, /x.xml]}]", "\"/x.xml\" must be a path"},
           {"steps: [{name: a, command: b, junit: ''}]", "\"\" must be a path"},
           {"steps: [{name: a, command: b, junit: 7}]", "junit must be an array"},
           {"steps: [{name: a, junit: x, parallel: [{name: b, command: c}]}]",
            "junit goes with each step"},
           {"steps: [{name: a, command: b, env: {1X: y}}]", "cannot be the name of a variable"},
           {"steps: [{name: a, command: b, env: {X: 1}}]", "must be text; put it in quotes"},
           {"steps: [{name: a, command: 'b {{ title'}]", "has no \"}}\""},
           {"steps: [{name: a, command: 'b {{ title.x }}'}]", "has nothing below it"},
           {"steps: [{name: a, command: 'b {{ titel }}'}]", "did you mean \"title\"?"},
           {"steps: [{name: a, command: b}]\nsteps: []", "stands twice"},
           {"steps: &x [{name: a, command: b, else: *x}]", "line"}}) {
    EXPECT_THAT(problem(text), HasSubstr(wanted)) << text;
  }
}

TEST(Playbooks, OfBombsEndSoon) {
  std::string aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i) {
    const std::string last = "*a" + std::to_string(i - 1);
    aliases += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + last;
    for (int j = 0; j < 9; ++j) aliases += ", " + last;
    aliases += "]\n";
  }
  EXPECT_THAT(problem(aliases), HasSubstr("aliases expanded"));
  EXPECT_THAT(problem("steps: " + std::string(10'000, '[')), HasSubstr("nested too deeply"));
}

TEST(Templates, GiveAValueToTheShellAsOneArgumentAndNeverAsText) {
  std::vector<std::string> env;
  const Template command = Template::shell(
      "run {{ title }} --to=\"{{branch}} {{ title }}\" '{{ title }}' # {{ task_id }} isn't\n{{ "
      "metadata.list }}");
  EXPECT_EQ(command.fill_shell(values(), env),
            "run \"${NECROCODE_VALUE_1}\" --to=\"${NECROCODE_VALUE_2} ${NECROCODE_VALUE_3}\" "
            "'{{ title }}' # \"${NECROCODE_VALUE_4}\" isn't\n\"${NECROCODE_VALUE_5}\"");
  EXPECT_THAT(
      env, ElementsAre("NECROCODE_VALUE_1=it's; id $(id) \"q\" `id`", "NECROCODE_VALUE_2=feature/x",
                       "NECROCODE_VALUE_3=it's; id $(id) \"q\" `id`", "NECROCODE_VALUE_4=app:1",
                       "NECROCODE_VALUE_5=[1,2]"));
  EXPECT_EQ(Template::plain("{{ branch }}-{{ metadata.team }}").fill(values()), "feature/x-core");
  EXPECT_THROW(Template::plain("{{ metadata.nobody }}").fill(values()), PlaybookExecutionError);
  EXPECT_EQ(Template::literal("docker ps {{ .Names }}").fill_shell(values(), env),
            "docker ps {{ .Names }}");
}

TEST(Templates, AreRefusedWhereTheShellReadsQuotesAnew) {
  for (const char* text :
       {"x=\"$(n \"{{ title }}\")\"", "n `echo {{ title }}`", "cat <<E\n{{ title }}\nE",
        "echo \\{{ title }}", "echo {{ title }} \"and on"}) {
    EXPECT_THROW(Template::shell(text), PlaybookExecutionError) << text;
  }
  EXPECT_EQ(Template::shell("x=$(date) cat <<E").names().size(), 0u);
}

// A '#' begins a comment only at the beginning of a word.
TEST(Templates, KnowWhereACommentBegins) {
  std::vector<std::string> env;
  const auto fill = [&](std::string_view text) {
    env.clear();
    return Template::shell(text).fill_shell(values(), env);
  };
  EXPECT_EQ(fill("{{ branch }}#\"{{ branch }}\""),
            "\"${NECROCODE_VALUE_1}\"#\"${NECROCODE_VALUE_2}\"");
  EXPECT_EQ(fill("(# the 5\" disk\n{{ branch }})"), "(# the 5\" disk\n\"${NECROCODE_VALUE_1}\")");
  EXPECT_EQ(fill("\\ #\"{{ branch }}\""), "\\ #\"${NECROCODE_VALUE_1}\"");
}

TEST(Playbooks, AreTheSameWhereTheSameRunsWithTheSameValues) {
  const auto print = [](const std::string& text, const Json& with) {
    return read_playbook(text, "book.yaml").fingerprint(with);
  };
  const std::string plain = "steps: [{name: A, command: make}]";
  EXPECT_EQ(print(plain, values()), print(plain, Json::object({{"title", "other"}})));
  EXPECT_NE(print(plain, values()),
            print("steps: [{name: A, command: make, env: {L: '1'}}]", values()));
  EXPECT_NE(print("steps: [{name: A, command: make, env: {L: '2'}}]", values()),
            print("steps: [{name: A, command: make, env: {L: '1'}}]", values()));
  const std::string asks = "steps: [{name: A, command: 'make {{ title }}'}]";
  EXPECT_NE(print(asks, values()), print(asks, Json::object({{"title", "other"}})));
  const std::string when = "steps: [{name: A, command: make, condition: title == 'x'}]";
  EXPECT_NE(print(when, values()), print(when, Json::object({{"title", "x"}})));
}

TEST(Templates, RefuseAValueThatNoEnvironmentHolds) {
  std::vector<std::string> env;
  const Template command = Template::shell("{{ title }}");
  for (const std::string& value : {std::string(200'000, 'x'), std::string("a\0b", 3)}) {
    EXPECT_THROW(command.fill_shell(Json::object({{"title", value}}), env), PlaybookExecutionError);
    EXPECT_THROW(Template::plain("{{ title }}").fill(Json::object({{"title", value}})),
                 PlaybookExecutionError);
  }
}

constexpr const char* kBranches = R"(
steps:
  - {name: A, command: a, fail_fast: false}
  - name: B
    condition: steps.a.passed
    command: b
    else:
      - {name: C, command: c}
      - {name: D, command: d, condition: not steps.a.passed}
  - {name: E, command: e}
)";

TEST(PlaybookEngine, TakesTheBranchThatItsConditionSays) {
  EXPECT_THAT(Ran(kBranches, {}).commands, ElementsAre("A#1", "B#1", "E#1"));
  const Ran other(kBranches, {"A#1"});
  EXPECT_THAT(other.commands, ElementsAre("A#1", "C#1", "D#1", "E#1"));
  EXPECT_FALSE(other.passed);
}

TEST(PlaybookEngine, EndsAtAFailureWithFailFast) {
  EXPECT_THAT(Ran(kBranches, {"B#1"}).commands, ElementsAre("A#1", "B#1"));
  EXPECT_THAT(Ran(kBranches, {"A#1", "C#1"}).commands, ElementsAre("A#1", "C#1"));
}

TEST(PlaybookEngine, RetriesAndTellsHowOften) {
  const Ran ran("steps: [{name: A, command: a, retry_count: 2}]", {"A#1"});
  EXPECT_THAT(ran.commands, ElementsAre("A#1", "A#2"));
  EXPECT_TRUE(ran.passed);
  EXPECT_EQ(ran.reports.at(0).attempts, 2);
  const Ran never("steps: [{name: A, command: a, retry_count: 1}]", {"A#1", "A#2", "A#3"});
  EXPECT_THAT(never.commands, ElementsAre("A#1", "A#2"));
  EXPECT_FALSE(never.passed);
}

TEST(PlaybookEngine, RunsAGroupToItsEndAndStopsAfterIt) {
  constexpr const char* kGroup = R"(
steps:
  - name: G
    parallel:
      - {name: A, command: a}
      - {name: B, command: b}
      - {name: C, command: c, condition: "false"}
  - {name: D, command: d, condition: steps.g.passed}
)";
  const Ran good(kGroup, {});
  EXPECT_THAT(good.commands, UnorderedElementsAre("A#1", "B#1", "D#1"));
  EXPECT_TRUE(good.passed);
  const Ran bad(kGroup, {"A#1"});
  EXPECT_THAT(bad.commands, UnorderedElementsAre("A#1", "B#1"));
  EXPECT_FALSE(bad.passed);
}

// Red before, red after: what the change is measured by is the task's own commands then.
TEST(PlaybookEngine, AStepThatIsNoTargetMayFailWhereItFailedBefore) {
  Playbook book = playbook_of({"lint", "unit"}, true);
  book.steps[0].target = false;
  const auto run = [&](const std::set<std::string>& red, const std::string& failing) {
    std::vector<StepReport> reports;
    run_playbook(
        book, values(), [&](const std::string& step) { return red.contains(step); },
        [&](const StepCommand& command) {
          return command.shell.find(failing) == std::string::npos;
        },
        reports);
    return reports;
  };
  const auto known = run({"lint", "unit"}, "lint");
  ASSERT_EQ(known.size(), 2u);
  EXPECT_TRUE(known[0].known_red);
  EXPECT_TRUE(all_passed(known));
  EXPECT_FALSE(all_passed(run({}, "lint")));                // it passed before
  EXPECT_FALSE(all_passed(run({"lint", "unit"}, "unit")));  // a target
  EXPECT_FALSE(all_passed(run({"lint"}, "")));              // nothing passed
}

TEST(PlaybookEngine, AGroupOfWhichNothingRanHasNotPassed) {
  const Ran ran(R"(
steps:
  - name: G
    parallel:
      - {name: A, command: a, condition: "false"}
  - {name: B, command: b, condition: steps.g.passed}
)",
                {});
  EXPECT_THAT(ran.commands, IsEmpty());
  EXPECT_FALSE(ran.passed);
}

TEST(PlaybookEngine, OfAConditionThatCannotBeToldTheReportIsNotPassed) {
  std::vector<StepReport> reports;
  EXPECT_THROW(run_playbook(
                   read_playbook("steps: [{name: A, command: a}, {name: B, command: b, "
                                 "condition: title > 0}]",
                                 "book.yaml"),
                   values(), {}, [](const StepCommand&) { return true; }, reports),
               PlaybookExecutionError);
  EXPECT_FALSE(all_passed(reports));
}

TEST(PlaybookEngine, OfNothingThatRanProvesNothing) {
  const Ran ran("steps: [{name: A, command: a, condition: metadata.team == 'other'}]", {});
  EXPECT_THAT(ran.commands, IsEmpty());
  EXPECT_FALSE(ran.passed);
  EXPECT_TRUE(ran.reports.at(0).skipped);
}

TEST(PlaybookEngine, NamesTheStepWhoseConditionFails) {
  try {
    Ran("steps: [{name: A, command: a, condition: metadata.nobody}]", {});
    FAIL() << "ran";
  } catch (const PlaybookExecutionError& error) {
    EXPECT_EQ(error.summary(),
              "step \"A\": condition: there is no value named \"metadata.nobody\"");
  }
}

TEST(PlaybookEngine, KeepsWhatHasRunWhenACommandThrows) {
  std::vector<StepReport> reports;
  const Playbook book = playbook_of({"one", "two", "three"}, true);
  EXPECT_THROW(run_playbook(
                   book, values(), {},
                   [](const StepCommand& command) -> bool {
                     if (command.shell == "two") throw TimeoutError("too late");
                     return true;
                   },
                   reports),
               TimeoutError);
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_TRUE(reports[0].passed);
  EXPECT_FALSE(reports[1].passed);
}

}  // namespace
}  // namespace necrocode::runner
