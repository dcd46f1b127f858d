// What keeps an answer readable and the writer quick, however large the input.
#include "store_fixture.hpp"

namespace necrocode::registry {
namespace {

class SizeLimits : public StoreTest {
 protected:
  NewArtifact artifact(std::size_t metadata_bytes) const {
    NewArtifact made;
    made.artifact = {"log", "http://x/1", {}, Json::object(), clock.system_now(), 0};
    made.artifact.metadata.set("text", std::string(metadata_bytes, 'x'));
    return made;
  }
};

TEST_F(SizeLimits, PageOfLargeEventsEndsEarlyAndGoesOnWhereItEnded) {
  store->submit(submission("app", {task_spec("1")}));
  NewEvent event{"Big", Json::object(), clock.system_now(), {}};
  event.data.set("text", std::string(limits::kPageBytes / 3, 'x'));
  for (int i = 0; i < 5; ++i) {
    event.data.set("i", i);
    store->add_event("app:1", event);
  }
  EventQuery query;
  query.type = "Big";
  std::vector<std::int64_t> seen;
  std::vector<std::size_t> sizes;
  while (true) {
    const EventPage page = store->events(query);
    for (const Event& one : page.items) seen.push_back(*one.data["i"].as_int());
    sizes.push_back(page.items.size());
    if (!page.next_cursor) break;
    query.after = std::stoll(*page.next_cursor);
  }
  EXPECT_THAT(seen, testing::ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(sizes, testing::ElementsAre(2, 2, 1));
}

TEST_F(SizeLimits, OneEventIsAPageHoweverLarge) {
  store->submit(submission("app", {task_spec("1")}));
  NewEvent event{"Big", Json::object(), clock.system_now(), {}};
  event.data.set("text", std::string(limits::kPageBytes + 1, 'x'));
  store->add_event("app:1", event);
  EventQuery query;
  query.type = "Big";
  EXPECT_EQ(store->events(query).items.size(), 1u);
}

TEST_F(SizeLimits, PageOfLargeTasksEndsEarlyInEveryOrder) {
  // Two thirds of a page in fields or in artifacts: two of them go into none.
  std::vector<TaskSpec> tasks;
  for (const char* number : {"1", "2", "3"}) {
    tasks.push_back(task_spec(number));
    tasks.back().fields.set("description", std::string(limits::kPageBytes / 3, 'x'));
  }
  store->submit(submission("app", tasks));
  for (const char* id : {"app:1", "app:2", "app:3"}) {
    store->add_artifact(id, artifact(limits::kPageBytes / 3));
  }
  for (const char* sort : {"number", "priority", "age"}) {
    TaskQuery query;
    query.sort = sort;
    std::vector<std::string> seen;
    while (true) {
      const TaskPage page = store->tasks(query);
      ASSERT_EQ(page.items.size(), 1u);
      seen.push_back(page.items.front().number);
      if (!page.next_cursor) break;
      query.cursor = *page.next_cursor;
    }
    EXPECT_THAT(seen, testing::ElementsAre("1", "2", "3")) << sort;
  }
}

TEST_F(SizeLimits, TaskHasSoManyBytesOfArtifactReferences) {
  store->submit(submission("app", {task_spec("1")}));
  store->add_artifact("app:1", artifact(limits::kTaskArtifactBytes / 2));
  const std::int64_t version = store->task("app:1").version;
  EXPECT_THROW(store->add_artifact("app:1", artifact(limits::kTaskArtifactBytes / 2)),
               TaskContextValidationError);
  EXPECT_EQ(store->task("app:1").version, version);
  EXPECT_EQ(store->task("app:1").artifacts.size(), 1u);
}

TEST_F(SizeLimits, TaskHasSoManyArtifactReferences) {
  store->submit(submission("app", {task_spec("1")}));
  const ClaimedTask claimed = claim_one();
  Completion completion;
  completion.lease_token = claimed.lease_token;
  completion.artifacts.assign(limits::kTaskArtifacts + 1, artifact(0).artifact);
  EXPECT_THROW(store->complete("app:1", completion, {}), TaskContextValidationError);
  EXPECT_EQ(state("app:1"), TaskState::kRunning);
  completion.artifacts.pop_back();
  EXPECT_EQ(store->complete("app:1", completion, {}).task.artifacts.size(), limits::kTaskArtifacts);
}

TEST_F(SizeLimits, TaskHasSoManyMembersOfMetadata) {
  store->submit(submission("app", {task_spec("1")}));
  StatusChange change;
  change.status = TaskState::kReady;
  for (std::size_t i = 0; i < limits::kMetadataMembers; ++i) {
    change.metadata.set("k" + std::to_string(i), 0);
  }
  EXPECT_EQ(store->set_status("app:1", change).metadata.size(), limits::kMetadataMembers);
  change.metadata = Json::object({{"k7", 7}});  // no more of them
  EXPECT_EQ(store->set_status("app:1", change).metadata["k7"], Json(7));
  change.metadata = Json::object({{"another", 1}});
  EXPECT_THROW(store->set_status("app:1", change), TaskContextValidationError);
}

TEST_F(SizeLimits, ManyMembersAreRefusedWithoutHoldingUpTheWriter) {
  store->submit(submission("app", {task_spec("1")}));
  StatusChange change;
  change.status = TaskState::kReady;
  change.metadata = Json::object();
  for (int i = 0; i < 100'000; ++i) change.metadata.members().emplace_back(std::to_string(i), 0);
  // One by one this took a minute.
  EXPECT_THROW(store->set_status("app:1", change), TaskContextValidationError);
}

TEST_F(SizeLimits, RepeatedNameCountsWithItsLastValue) {
  store->submit(submission("app", {task_spec("1")}));
  StatusChange change;
  change.status = TaskState::kReady;
  change.metadata = Json::parse(R"({"a":1,"b":2,"a":3})");
  EXPECT_EQ(store->set_status("app:1", change).metadata, Json::parse(R"({"a":3,"b":2})"));
}

TEST_F(SizeLimits, SubmittedMetadataIsLimitedToo) {
  Json task = Json::object({{"id", "1"}, {"metadata", Json::object()}});
  Json::Object members;
  for (std::size_t i = 0; i <= limits::kMetadataMembers; ++i) {
    members.emplace_back(std::to_string(i), 0);
  }
  task.set("metadata", Json(std::move(members)));
  JsonFields reader(task);
  TaskSpec::from_json(reader);
  ASSERT_EQ(reader.errors().size(), 1u);
  EXPECT_EQ(reader.errors().front().pointer, "/metadata");
}

}  // namespace
}  // namespace necrocode::registry
