// What can be read, and in which pages.
#include <set>

#include "conformance/task_store_suite.hpp"

namespace necrocode::registry {
namespace {

using std::chrono::seconds;
using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

using TaskStoreQueries = TaskStoreSuite;
INSTANTIATE_TEST_SUITE_P(Stores, TaskStoreQueries, testing::ValuesIn(store_factories()),
                         name_of_factory);

TEST_P(TaskStoreQueries, PagesAreStableWhileTasksAreAdded) {
  std::vector<TaskSpec> tasks;
  for (int i = 1; i <= 12; ++i) tasks.push_back(task_spec("1." + std::to_string(i)));
  submit(submission("app", tasks));
  for (const std::string sort : {"number", "priority", "age"}) {
    TaskQuery query;
    query.sort = sort;
    query.spec = "app";
    query.limit = 5;
    std::multiset<std::string> seen;
    TaskPage page = store->tasks(query);
    while (true) {
      for (const Task& task : page.items) seen.insert(task.number);
      if (!page.next_cursor) break;
      query.cursor = *page.next_cursor;
      submit(submission("app", {task_spec("0." + sort + std::to_string(seen.size()))}));
      page = store->tasks(query);
    }
    for (const TaskSpec& task : tasks) EXPECT_EQ(seen.count(task.number), 1u) << sort;
  }
}

TEST_P(TaskStoreQueries, NumbersSortAsPeopleCount) {
  submit(submission("app", {task_spec("1.10"), task_spec("1.9"), task_spec("1.2.1"),
                            task_spec("1.2"), task_spec("10"), task_spec("2")}));
  std::vector<std::string> numbers;
  for (const Task& task : store->tasks({}).items) numbers.push_back(task.number);
  EXPECT_THAT(numbers, ElementsAre("1.2", "1.2.1", "1.9", "1.10", "2", "10"));
}

TEST_P(TaskStoreQueries, FiltersSelectByStateSkillLabelAndText) {
  submit(submission(
      "app", {task_spec("1", {}, Json::object({{"labels", std::vector<std::string>{"ui", "x"}}})),
              task_spec("2", {}, Json::object({{"required_skill", "rust"}})),
              task_spec("3", {"1"}, Json::object({{"description", "100% of a_b"}}))}));
  submit(submission("other", {task_spec("1")}));
  const auto found = [&](auto&& set) {
    TaskQuery query;
    set(query);
    std::vector<std::string> ids;
    for (const Task& task : store->tasks(query).items) ids.push_back(task.id);
    return ids;
  };
  EXPECT_THAT(found([](TaskQuery& q) { q.states = {TaskState::kBlocked}; }), ElementsAre("app:3"));
  EXPECT_THAT(found([](TaskQuery& q) { q.skill = "rust"; }), ElementsAre("app:2"));
  EXPECT_THAT(found([](TaskQuery& q) { q.label = "ui"; }), ElementsAre("app:1"));
  EXPECT_THAT(found([](TaskQuery& q) { q.text = "100% of A_"; }), ElementsAre("app:3"));
  EXPECT_THAT(found([](TaskQuery& q) { q.text = "a%b"; }), IsEmpty());
  EXPECT_THAT(found([](TaskQuery& q) { q.spec = "other"; }), ElementsAre("other:1"));
  EXPECT_THROW(found([](TaskQuery& q) { q.sort = "colour"; }), TaskContextValidationError);
  EXPECT_THROW(found([](TaskQuery& q) { q.cursor = "nonsense"; }), TaskContextValidationError);
}

TEST_P(TaskStoreQueries, EventsComeInTheServersOrderAndResumeWithoutGapOrRepeat) {
  submit(submission("app", {task_spec("1"), task_spec("2")}));
  for (int i = 0; i < 10; ++i) {
    NewEvent event{"TaskProgress", Json::object({{"i", i}}), {}, {}};
    event.timestamp = SystemTime(std::chrono::hours(i % 2 ? 0 : 24 * 365 * 130));  // 1970, 2100
    add_event(i < 5 ? "app:1" : "app:2", event);
  }
  EventQuery query;
  query.type = "TaskProgress";
  query.limit = 3;
  std::vector<std::int64_t> seen;
  while (true) {
    const EventPage page = store->events(query);
    for (const Event& event : page.items) seen.push_back(*event.data["i"].as_int());
    if (!page.next_cursor) break;
    query.after = page.items.back().id;
  }
  EXPECT_THAT(seen, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  query = {};
  query.spec = "app";
  EXPECT_EQ(store->events(query).items.size(), 12u);
  query.since = clock.system_now() + seconds(1);
  EXPECT_THAT(store->events(query).items, IsEmpty());
  query.since.reset();
  query.until = clock.system_now();
  EXPECT_THAT(store->events(query).items, IsEmpty());
}

TEST_P(TaskStoreQueries, PagesMissNothingAndRepeatNothingWhileTasksAreRemovedAndChanged) {
  std::vector<TaskSpec> tasks;
  for (int i = 1; i <= 12; ++i) tasks.push_back(task_spec(std::to_string(i)));
  for (const std::string sort : {"number", "age"}) {
    const std::string spec = "by-" + sort;
    submit(submission(spec, tasks));
    TaskQuery query;
    query.sort = sort;
    query.spec = spec;
    query.limit = 5;
    std::vector<std::string> seen;
    for (int page_number = 0;; ++page_number) {
      const TaskPage page = store->tasks(query);
      for (const Task& one : page.items) seen.push_back(one.number);
      if (!page.next_cursor) break;
      query.cursor = *page.next_cursor;
      // The one that the cursor stands at goes, and one ahead of it changes.
      std::vector<TaskSpec> rest;
      for (const TaskSpec& task : tasks) {
        if (page_number > 0 || task.number != "5") rest.push_back(task);
      }
      if (page_number > 0) rest.erase(rest.begin() + 4);
      Submission whole = submission(spec, rest);
      whole.replace = true;
      submit(whole);
      cancel(spec + ":12", "");
    }
    EXPECT_THAT(seen, ElementsAre("1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"));
  }
}

TEST_P(TaskStoreQueries, TimesSelectTasksByTheirLastChange) {
  submit(submission("app", {task_spec("1"), task_spec("2")}));
  const SystemTime before = clock.system_now();
  clock.advance(10s);
  cancel("app:2", "");
  TaskQuery query;
  query.since = before + 1ms;
  ASSERT_EQ(store->tasks(query).items.size(), 1u);
  EXPECT_EQ(store->tasks(query).items[0].id, "app:2");
  query.since = before;
  EXPECT_EQ(store->tasks(query).items.size(), 2u);
  query.until = before + 10s;
  ASSERT_EQ(store->tasks(query).items.size(), 1u);
  EXPECT_EQ(store->tasks(query).items[0].id, "app:1");
}

TEST_P(TaskStoreQueries, TasksetsComeByNameInPages) {
  for (const char* name : {"b", "a", "c"}) submit(submission(name, {task_spec("1")}));
  const TasksetPage first = store->tasksets("", 2);
  ASSERT_EQ(first.items.size(), 2u);
  EXPECT_EQ(first.items[0].spec_name, "a");
  EXPECT_EQ(first.next_cursor, "b");
  const TasksetPage second = store->tasksets(*first.next_cursor, 2);
  ASSERT_EQ(second.items.size(), 1u);
  EXPECT_EQ(second.items[0].spec_name, "c");
  EXPECT_FALSE(second.next_cursor.has_value());
}

TEST_P(TaskStoreQueries, CountsAreWhatIsThere) {
  submit(
      submission("app", {task_spec("1"), task_spec("2", {"1"}), task_spec("3"), task_spec("4")}));
  submit(submission("other", {task_spec("1")}));
  complete(claim_one());
  cancel("app:3", "");
  claim_named("app:4");
  const std::map<TaskState, std::int64_t> expected = {
      {TaskState::kBlocked, 0}, {TaskState::kReady, 2},  {TaskState::kRunning, 1},
      {TaskState::kDone, 1},    {TaskState::kFailed, 0}, {TaskState::kCancelled, 1}};
  EXPECT_EQ(store->counts(), expected);
  EXPECT_EQ(taskset("app", TasksetPart::kHead).counts, Json::object({{"blocked", 0},
                                                                     {"ready", 1},
                                                                     {"running", 1},
                                                                     {"done", 1},
                                                                     {"failed", 0},
                                                                     {"cancelled", 1}}));
}

TEST_P(TaskStoreQueries, GraphNamesTheTasksOfOtherTasksetsThatItNeeds) {
  submit(submission("base", {task_spec("1")}));
  TaskSpec last = task_spec("10", {"2", "base:1"});
  last.dependency_policies["base:1"] = DependencyPolicy::kRun;
  submit(submission("app", {task_spec("2", {"base:1"}), last}));
  const TaskGraph graph = store->graph("app");
  std::vector<std::string> nodes;
  for (const TaskGraph::Node& node : graph.nodes) {
    nodes.push_back(node.id + (node.external ? " elsewhere" : ""));
  }
  EXPECT_THAT(nodes, ElementsAre("app:2", "app:10", "base:1 elsewhere"));
  std::vector<std::string> edges;
  for (const TaskGraph::Edge& edge : graph.edges) {
    edges.push_back(edge.parent + " > " + edge.child + ", " + std::string(to_string(edge.policy)));
  }
  EXPECT_THAT(
      edges, ElementsAre("base:1 > app:2, block", "base:1 > app:10, run", "app:2 > app:10, block"));
  EXPECT_THROW(store->graph("none"), NotFound);
}

TEST_P(TaskStoreQueries, ExplanationSaysWhyATaskDoesNotRun) {
  submit(
      submission("app", {task_spec("1"), task_spec("2", {"1"}), task_spec("3"), task_spec("4")}));
  EXPECT_TRUE(store->explain("app:1").claimable);
  EXPECT_THAT(waits_for("app:1"), IsEmpty());
  EXPECT_THAT(waits_for("app:2"), ElementsAre("dependency"));
  EXPECT_EQ(store->explain("app:2").reasons.at(0).task_id, "app:1");
  set_status("app:4", TaskState::kBlocked);
  EXPECT_THAT(waits_for("app:4"), ElementsAre("state"));
  const ClaimedTask claimed = claim_one();
  EXPECT_THAT(waits_for("app:1"), IsEmpty());
  EXPECT_FALSE(store->explain("app:1").claimable);
  fail(claimed, "agent");
  EXPECT_THAT(waits_for("app:1"), ElementsAre("state"));
  EXPECT_THAT(store->explain("app:1").reasons.at(0).detail, HasSubstr("because of agent"));
  complete(claim_one());
  EXPECT_THAT(waits_for("app:3"), ElementsAre("state"));
  EXPECT_THROW(store->explain("app:9"), NotFound);
}

TEST_P(TaskStoreQueries, PurgeRemovesOldFinishedTasksetsThatNobodyNeeds) {
  submit(submission("old", {task_spec("1")}));
  submit(submission("needed", {task_spec("1")}));
  submit(submission("child", {task_spec("1", {"needed:1"}), task_spec("2", {"old:1"})}));
  submit(submission("open", {task_spec("1")}));
  submit(submission("empty", {}));
  complete(claim_named("old:1").at(0));
  complete(claim_named("child:2").at(0));
  cancel("needed:1", "");
  Retention retention;
  retention.tasksets = 60s;
  clock.advance(60s);
  while (store->purge(retention)) {
  }
  EXPECT_THAT(store->tasksets("", 10).items, SizeIs(5));  // not older than that
  clock.advance(1ms);
  while (store->purge(retention)) {
  }
  std::vector<std::string> left;
  for (const Taskset& one : store->tasksets("", 10).items) left.push_back(one.spec_name);
  EXPECT_THAT(left, ElementsAre("child", "needed", "open"));
  EXPECT_THROW(task("old:1"), NotFound);
  EXPECT_THAT(store->graph("child").edges, SizeIs(1));
  EventQuery query;
  query.type = "TaskCreated";
  EXPECT_THAT(store->events(query).items, SizeIs(4));
  EXPECT_EQ(store->counts()[TaskState::kDone], 1);
  // Its name is free again.
  EXPECT_TRUE(submit(submission("old", {task_spec("1")})).created);
}

TEST_P(TaskStoreQueries, PurgeRemovesOldEventsAndTheirIdsNeverComeAgain) {
  submit(submission("app", {task_spec("1"), task_spec("2")}));
  const std::int64_t last = store->newest_event();
  clock.advance(60s);
  cancel("app:1", "");
  Retention retention;
  retention.events = 30s;
  while (store->purge(retention)) {
  }
  EXPECT_THAT(event_types("app:1"), ElementsAre("TaskCancelled"));
  EXPECT_THAT(event_types("app:2"), IsEmpty());
  clock.advance(60s);
  while (store->purge(retention)) {
  }
  EXPECT_EQ(store->newest_event(), 0);
  cancel("app:2", "");
  EXPECT_GT(store->newest_event(), last + 1);
  EXPECT_EQ(state("app:1"), TaskState::kCancelled);  // history alone is gone
}

TEST_P(TaskStoreQueries, PurgeOfEventsGoesOnBehindThoseOfALaterTime) {
  clock.step_system(2h);
  std::vector<TaskSpec> many;
  for (int i = 0; i < 2500; ++i) many.push_back(task_spec("f" + std::to_string(i)));
  submit(submission("future", many));
  clock.step_system(-2h);
  submit(submission("app", {task_spec("1")}));
  clock.advance(60s);
  Retention retention;
  retention.events = 30s;
  while (store->purge(retention)) {
  }
  EXPECT_THAT(event_types("app:1"), IsEmpty());
  EXPECT_THAT(event_types("future:f7"), ElementsAre("TaskCreated"));
  clock.advance(2h);
  while (store->purge(retention)) {
  }
  EXPECT_EQ(store->newest_event(), 0);
}

}  // namespace
}  // namespace necrocode::registry
