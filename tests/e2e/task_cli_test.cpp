// `necrocode task` against the shipped services: pages, filters, changes, and the live table on a
// terminal.
#include "e2e/services_fixture.hpp"
#include "support/terminal.hpp"

namespace necrocode::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class TaskCli : public Services {
 protected:
  /// Runs `necrocode task …` and keeps what it printed in output_.
  int task(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "task");
    arguments.insert(arguments.end(), {"--url", url_});
    output_.clear();
    return run(arguments, &output_);
  }
  Json document() const { return Json::parse(output_); }
  std::unique_ptr<Program> watch(const std::string& what) {
    return start({"task", "watch", what, "--url", url_});
  }
  std::unique_ptr<TerminalProgram> watch_on_terminal(const std::string& what,
                                                     unsigned short rows = 24) {
    std::vector<std::string> env = environment();
    env.emplace_back("TERM=xterm");
    return std::make_unique<TerminalProgram>(
        std::vector<std::string>{NECROCODE_BINARY, "task", "watch", what, "--url", url_}, env,
        path("stderr"), rows, 60);
  }

  LeaseToken claim(const std::string& id) {
    registry::ClaimRequest request;
    request.task_id = id;
    request.runner_id.value = "runner-1";
    const auto claimed = registry_->claim(request);
    EXPECT_EQ(claimed.size(), 1U) << id;
    return claimed.empty() ? LeaseToken{} : claimed.front().lease_token;
  }
  void finish(const std::string& id, const LeaseToken& lease, const std::string& failure = {}) {
    registry::Completion completion;
    completion.lease_token = lease;
    completion.metadata = Json::parse(
        R"({"branch":"feature/x","commit":"0123456789abcdef",
            "usage":{"cost_usd":1.5,"total_tokens":42}})");
    completion.artifacts.push_back({"log", "http://store/artifacts/7", 10, {}, {}, 0});
    if (!failure.empty()) {
      completion.status = registry::TaskState::kFailed;
      completion.failure = registry::Failure{"tests", failure, {}};
    }
    registry_->complete(id, completion);
  }
  void submit_chain(const std::string& policy = "block") {
    Json taskset = Json::parse(R"({"spec_name":"s","tasks":[{"id":"1","title":"First"},
        {"id":"2","title":"Second","dependencies":["1"]},
        {"id":"3","title":"Third","dependencies":["2"]}]})");
    Json tasks = Json::array();
    for (Json task : taskset["tasks"].items()) {
      if (task["id"] == Json("2")) task.set("on_dependency_failure", policy);
      tasks.push_back(std::move(task));
    }
    registry_->submit(taskset.set("tasks", std::move(tasks)));
  }

  std::string output_;
};

TEST_F(TaskCli, SubmitSaysHowManyTasksAreInWhichState) {
  write_file_atomic(path("set.json"),
                    R"({"spec_name":"s","tasks":[
      {"id":"1","title":"a","repo_url":"file:///r"},
      {"id":"2","title":"b","repo_url":"file:///r","dependencies":["1"],"provider":"p",
       "on_dependency_failure":"run"}]})");
  ASSERT_EQ(task({"submit", path("set.json").string()}), 0) << stderr_text();
  EXPECT_EQ(output_, "s: 2 tasks, version 1: 1 blocked, 1 ready\n");
  EXPECT_THAT(stderr_text(), Not(HasSubstr("unknown key")));
  ASSERT_EQ(task({"submit", path("set.json").string(), "--json"}), 0);
  EXPECT_EQ(document()["tasks"].size(), 2U);
}

TEST_F(TaskCli, ListTakesTimesAsTheyAreAndAsHowLongAgo) {
  submit_chain();
  ASSERT_EQ(task({"list", "--since", "1h", "--json"}), 0) << stderr_text();
  EXPECT_EQ(document()["items"].size(), 3U);
  ASSERT_EQ(task({"list", "--until", "7d", "--json"}), 0) << stderr_text();
  EXPECT_EQ(document()["items"].size(), 0U);
  ASSERT_EQ(task({"list", "--since", "2100-01-01T00:00:00Z", "--json"}), 0) << stderr_text();
  EXPECT_EQ(document()["items"].size(), 0U);
  for (const char* wrong : {"yesterday", "h", "2", "-2h", "99999999999999999999w", "9999999w"}) {
    EXPECT_EQ(task({"list", std::string("--since=") + wrong}), 2) << wrong;
  }
  EXPECT_THAT(stderr_text(), HasSubstr("--since: \"yesterday\" is not a time such as"));
}

TEST_F(TaskCli, ShowIsAPageAndWithJsonTheWholeDocument) {
  submit_chain();
  finish("s:1", claim("s:1"), "3 tests \x1b[2J failed");
  ASSERT_EQ(task({"show", "s:1"}), 0) << stderr_text();
  for (const char* shown :
       {"s:1  First\n", "state        failed", "reason       tests: 3 tests \\x1b[2J failed",
        "feature/x", "0123456789ab", "1.50 USD", "42", "runner-1", "http://store/artifacts/7"}) {
    EXPECT_THAT(output_, HasSubstr(shown));
  }
  EXPECT_THAT(output_, Not(HasSubstr("\x1b")));
  ASSERT_EQ(task({"show", "s:2"}), 0) << stderr_text();
  EXPECT_THAT(output_, HasSubstr("DEPENDS ON  STATE   TITLE\ns:1         failed  First"));
  EXPECT_THAT(output_, HasSubstr("reason       waits for s:1"));
  ASSERT_EQ(task({"show", "s:1", "--json"}), 0) << stderr_text();
  EXPECT_EQ(document()["state"], Json("failed"));
  EXPECT_EQ(document()["attempts"].items().at(0)["cost_usd"], Json(1.5));
  ASSERT_EQ(task({"attempts", "s:1", "--json"}), 0) << stderr_text();
  EXPECT_EQ(document()["items"].items().at(0)["failure"]["class"], Json("tests"));
  ASSERT_EQ(task({"attempts", "s:1"}), 0) << stderr_text();
  EXPECT_THAT(output_, HasSubstr("runner-1"));
  EXPECT_EQ(task({"show", "s:9"}), 3);
}

TEST_F(TaskCli, ExplainNamesEachReason) {
  submit_chain();
  ASSERT_EQ(task({"explain", "s:2"}), 0) << stderr_text();
  EXPECT_EQ(output_, "s:2 is blocked\n- dependency: waits for s:1, which is ready\n");
  ASSERT_EQ(task({"explain", "s:1"}), 0) << stderr_text();
  EXPECT_THAT(output_, HasSubstr("s:1 is ready, and the next claimant"));
  ASSERT_EQ(task({"explain", "s:2", "--json"}), 0) << stderr_text();
  EXPECT_EQ(document()["reasons"].items().at(0)["task_id"], Json("s:1"));
  EXPECT_EQ(task({"explain", "s:9"}), 3);
}

TEST_F(TaskCli, EventsByTaskSpecTypeTimeAndId) {
  submit_chain();
  finish("s:1", claim("s:1"));
  ASSERT_EQ(task({"events", "s:1", "--json"}), 0) << stderr_text();
  std::vector<std::string> types;
  for (const Json& event : document()["items"].items())
    types.push_back(event["event_type"].string_or(""));
  EXPECT_THAT(types, ElementsAre("TaskCreated", "TaskAssigned", "TaskCompleted"));
  const std::string first = document()["items"].items().at(0)["id"].dump();
  ASSERT_EQ(task({"events", "s:1", "--after", first, "--json"}), 0);
  EXPECT_EQ(document()["items"].size(), 2U);
  ASSERT_EQ(task({"events", "--spec", "s", "--type", "TaskReady", "--since", "1h"}), 0);
  EXPECT_THAT(output_, HasSubstr("s:2  TaskReady"));
  EXPECT_THAT(output_, Not(HasSubstr("TaskCreated")));
  ASSERT_EQ(task({"events", "--until", "1h", "--json"}), 0);
  EXPECT_EQ(document(), Json::parse(R"({"items":[]})"));
  EXPECT_EQ(task({"events", "--after", "x"}), 2);
  EXPECT_EQ(task({"events", "s:9"}), 3);
}

TEST_F(TaskCli, SetChangesWhatIsGivenAndNothingElse) {
  submit_chain();
  ASSERT_EQ(task({"set", "s:1", "--priority", "-3", "--label", "a", "--label", "b", "--metadata",
                  R"(note={"n":1})"}),
            0)
      << stderr_text();
  EXPECT_EQ(output_, "s:1  ready\n");
  ASSERT_EQ(task({"set", "s:1", "--metadata", "other=true", "--json"}), 0) << stderr_text();
  EXPECT_EQ(document()["priority"], Json(-3));
  EXPECT_EQ(document()["labels"].dump(), R"(["a","b"])");
  EXPECT_EQ(document()["metadata"]["note"]["n"], Json(1));
  EXPECT_EQ(document()["metadata"]["other"], Json(true));
  ASSERT_EQ(task({"set", "s:1", "--label", "", "--json"}), 0) << stderr_text();
  EXPECT_EQ(document()["labels"].size(), 0U);
  EXPECT_EQ(task({"set", "s:1"}), 2);
  EXPECT_EQ(task({"set", "s:1", "--priority", "high"}), 2);
  EXPECT_EQ(task({"set", "s:1", "--metadata", "key=text"}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("\"key=text\" is not KEY=JSON"));
  EXPECT_EQ(task({"set", "s:9", "--priority", "1"}), 3);
}

TEST_F(TaskCli, ParkedProviderIsShownAndItsTasksWaitUntilItGoesOn) {
  registry_->submit(
      Json::parse(R"({"spec_name":"s","tasks":[{"id":"1","title":"a","provider":"openai"}]})"));
  ASSERT_EQ(task({"park", "openai", "--for", "2h", "--reason", "quota"}), 0) << stderr_text();
  EXPECT_THAT(output_, HasSubstr("openai is parked until 2"));
  ASSERT_EQ(task({"explain", "s:1"}), 0);
  EXPECT_THAT(output_, HasSubstr("- provider: the provider openai is parked: quota (until 2"));
  ASSERT_EQ(task({"providers"}), 0) << stderr_text();
  EXPECT_THAT(output_, HasSubstr("quota"));
  ASSERT_EQ(task({"unpark", "openai"}), 0) << stderr_text();
  ASSERT_EQ(task({"providers", "--json"}), 0);
  EXPECT_EQ(document()["items"].size(), 0U);
  EXPECT_EQ(task({"unpark", "openai"}), 3);
  EXPECT_EQ(task({"park", "openai"}), 2);
  EXPECT_EQ(task({"park", "openai", "--for", "2h", "--until", "2100-01-01T00:00:00Z"}), 2);
  EXPECT_EQ(task({"park", "openai", "--until", "2h"}), 2);
  ASSERT_EQ(task({"park", "openai", "--until", "2026-01-01T00:00:00Z", "--json"}), 0);
  EXPECT_EQ(document()["name"], Json("openai"));
}

TEST_F(TaskCli, GraphShowsWhatFailedAndWhatHoldsInQuotedText) {
  registry_->submit(Json::parse(R"({"spec_name":"s","tasks":[
      {"id":"1","title":"a \"b\" \\ \u001b[2J <c> }"},
      {"id":"2","title":"b","dependencies":["1"]},
      {"id":"4","title":"d","dependencies":["2"]},
      {"id":"3","title":"c","dependencies":["1","2"],"on_dependency_failure":"run"}]})"));
  finish("s:1", claim("s:1"), "red");
  ASSERT_EQ(task({"graph", "s", "--format", "dot"}), 0) << stderr_text();
  EXPECT_THAT(output_, HasSubstr("  \"s:1\" [label=\"s:1 (failed) a \\\"b\\\" \\\\ \\\\x1b[2J <c> "
                                 "}\", style=\"filled\", fillcolor=\"#ffb3b3\"];\n"));
  EXPECT_THAT(output_, HasSubstr("  \"s:1\" -> \"s:2\" [color=red];\n"));
  EXPECT_THAT(output_,
              HasSubstr("  \"s:1\" -> \"s:3\" [style=dashed, label=\"on failure: run\"];\n"));
  EXPECT_THAT(output_, HasSubstr("  \"s:2\" -> \"s:4\";\n")) << "what has not failed holds nobody";
  // Outside of quotes there is only what DOT's grammar has.
  std::string bare;
  bool quoted = false;
  for (std::size_t i = 0; i < output_.size(); ++i) {
    if (quoted && output_[i] == '\\') {
      ++i;
    } else if (output_[i] == '"') {
      quoted = !quoted;
    } else if (!quoted) {
      bare += output_[i];
    }
  }
  EXPECT_FALSE(quoted);
  EXPECT_THAT(bare, testing::MatchesRegex("digraph  \\{[^\"\\\\{}]*\\}\n+"));
  ASSERT_EQ(task({"graph", "s", "--format", "mermaid"}), 0) << stderr_text();
  EXPECT_THAT(output_, HasSubstr(" -.->|on failure: run| "));
  ASSERT_EQ(task({"graph", "s"}), 0) << stderr_text();
  EXPECT_EQ(document()["edges"].items().at(1)["on_failure"], Json("run"));
}

TEST_F(TaskCli, WatchedTaskBehindAFailedOneThenItEndsAsNotDone) {
  submit_chain();
  auto watching = watch("s:3");
  ASSERT_TRUE(watching->read_until("s:3  TaskCreated").has_value()) << stderr_text();
  finish("s:1", claim("s:1"), "red");  // of which the feed of s:3 says nothing
  EXPECT_EQ(watching->wait(), 1) << stderr_text();
  EXPECT_EQ(watch("s:3")->wait(), 1);
  EXPECT_EQ(watch("s")->wait(), 1);
}

TEST_F(TaskCli, WatchedTaskThatMayGoOnWithoutItsParentThenItIsWaitedFor) {
  submit_chain("run");
  auto watching = watch("s:3");
  auto all = watch("s");
  ASSERT_TRUE(watching->read_until("s:3  TaskCreated").has_value()) << stderr_text();
  finish("s:1", claim("s:1"), "red");
  finish("s:2", claim("s:2"));
  finish("s:3", claim("s:3"));
  std::string output;
  EXPECT_EQ(watching->wait(&output), 0) << stderr_text();
  EXPECT_THAT(output, HasSubstr("s:3  TaskCompleted"));
  EXPECT_EQ(all->wait(), 1) << "one of its tasks has failed";
}

TEST_F(TaskCli, WatchedSpecThatWaitsForAnotherOneThenItGoesOnWithThat) {
  submit_chain();
  registry_->submit(Json::parse(R"({"spec_name":"t","tasks":[{"id":"1","title":"a"},
      {"id":"2","title":"b","dependencies":["s:1"]}]})"));
  finish("t:1", claim("t:1"), "red");
  auto watching = watch("t");
  ASSERT_TRUE(watching->read_until("TaskFailed").has_value());
  // t:2 still waits for s:1, whatever has become of t:1.
  finish("s:1", claim("s:1"));
  ASSERT_TRUE(watching->read_until("t:2  TaskReady").has_value()) << stderr_text();
  finish("t:2", claim("t:2"));
  EXPECT_EQ(watching->wait(), 1);
}

TEST_F(TaskCli, TableOnATerminalFollowsTheTasksInPlaceToTheirEnd) {
  submit_chain();
  auto table = watch_on_terminal("s");
  ASSERT_TRUE(table->until_shown("s: 2 blocked, 1 ready")) << stderr_text();
  EXPECT_FALSE(table->screen().cursor_visible());
  const LeaseToken first = claim("s:1");
  ASSERT_TRUE(table->until_shown("s: 2 blocked, 1 running"));
  ASSERT_TRUE(table->until([](const Screen& screen) {
    return screen.lines().size() > 2 && screen.lines()[2].starts_with("s:1") &&
           screen.lines()[2].find("running") != std::string::npos;
  }));
  finish("s:1", first);
  finish("s:2", claim("s:2"));
  finish("s:3", claim("s:3"));
  EXPECT_EQ(table->wait(), 0) << stderr_text();
  const Screen& screen = table->screen();
  EXPECT_THAT(screen.lines().front(), HasSubstr("s: 3 done | 4.50 USD"));
  EXPECT_LE(screen.height(), 6U) << "nothing was drawn below";
  EXPECT_TRUE(screen.cursor_visible());
  EXPECT_TRUE(screen.wraps());
  EXPECT_EQ(screen.strange(), "");
}

TEST_F(TaskCli, TableIsBoundedByTheTerminalAndHarmless) {
  Json tasks = Json::array();
  for (int i = 1; i <= 30; ++i) {
    tasks.push_back(Json::object({{"id", std::to_string(i)},
                                  {"title", "\x1b]0;title\x07 \x1b[2J" + std::string(200, 'x')}}));
  }
  registry_->submit(Json::object({{"spec_name", "s"}, {"tasks", std::move(tasks)}}));
  finish("s:30", claim("s:30"), "red");
  for (int i = 1; i <= 8; ++i) claim("s:" + std::to_string(i));
  auto table = watch_on_terminal("s", 10);
  ASSERT_TRUE(table->until_shown("… 24 more")) << stderr_text();
  const Screen& screen = table->screen();
  EXPECT_TRUE(screen.lines()[2].starts_with("s:1 "));
  EXPECT_TRUE(screen.lines()[7].starts_with("s:30")) << "there is room for what has failed";
  EXPECT_LE(screen.height(), 10U);
  EXPECT_LE(screen.widest(), 60U);
  EXPECT_EQ(screen.strange(), "");
  table->signal(SIGINT);
  EXPECT_EQ(table->wait(), 5);
  EXPECT_TRUE(screen.cursor_visible());
  EXPECT_TRUE(screen.wraps());
}

TEST_F(TaskCli, TableOfATaskBehindAFailedOneThenItEndsWithTheReason) {
  submit_chain();
  auto table = watch_on_terminal("s:2");
  ASSERT_TRUE(table->until_shown("s:2: 1 blocked")) << stderr_text();
  finish("s:1", claim("s:1"), "red");
  EXPECT_EQ(table->wait(), 1);
  EXPECT_TRUE(table->screen().shows("waits for s:1"));
  EXPECT_EQ(watch_on_terminal("s:9")->wait(), 3) << "unknown";
}

TEST_F(TaskCli, WatchThatIsInterruptedThenItSaysSo) {
  submit_chain();
  auto watching = watch("s");
  ASSERT_TRUE(watching->read_until("s:3  TaskCreated").has_value()) << stderr_text();
  watching->signal(SIGINT);
  EXPECT_EQ(watching->wait(), 5);
}

}  // namespace
}  // namespace necrocode::test
