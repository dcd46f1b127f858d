// What the Task Registry exchanges with files, through the shipped binary: plans and queues in,
// ticks back, backup and restore.
#include <atomic>
#include <thread>

#include "e2e/services_fixture.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;

class TaskFiles : public Services {
 protected:
  std::string write(const std::string& name, std::string_view text) {
    fs::create_directories(path(name).parent_path());
    write_file_atomic(path(name), text);
    return path(name).string();
  }
  std::string text_of(const std::string& file) { return read_file(file, limits::kMiB); }
  int import(const std::string& file, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"task", "import", file,    "--url",
                                          url_,   "--repo", remote()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  void finish(const std::string& id) {
    registry::ClaimRequest request;
    request.task_id = id;
    const auto claimed = registry_->claim(request);
    ASSERT_EQ(claimed.size(), 1U) << id;
    registry::Completion completion;
    completion.lease_token = claimed.front().lease_token;
    registry_->complete(id, completion);
  }
  /// The model's answer to the prompt of the task with this id: others may name its title.
  static Json answer_to(const std::string& id, const Json& changes) {
    Json entry = answer(changes, 0);
    entry.set("match", Json::object({{"contains", std::vector<std::string>{"Task " + id + ":"}}}));
    return entry;
  }
};

constexpr const char* kPlan =
    "# Plan  \r\n"
    "- [ ] 1. Write one\r\n"
    "- [ ] 2. Group\r\n"
    "  - [ ] 2.1 Write two\r\n"
    "    - _Requirements: 1.1_\r\n"
    "  - [ ]* 2.2 Write three\r\n";

TEST_F(TaskFiles, PlanIsImportedRunAndTickedToTheEnd) {
  serve_model({answer_to("shop:1", change({{"one.txt", "good\n"}})),
               answer_to("shop:2.1", change({{"two.txt", "good\n"}}))});
  const std::string file = write(".kiro/specs/shop/tasks.md", kPlan);
  ASSERT_EQ(import(file, {"--without-optional", "--test", "grep -q good one.txt"}), 0)
      << stderr_text();
  EXPECT_EQ(registry_->get_task("shop:2.1").state, registry::TaskState::kBlocked);
  const auto version = registry_->get_taskset("shop").version;
  ASSERT_EQ(import(file, {"--without-optional", "--test", "grep -q good one.txt"}), 0);
  EXPECT_EQ(registry_->get_taskset("shop").version, version) << "the same file changes nothing";

  auto ticking = start({"task", "tick", file, "--url", url_, "--watch"});
  auto one = worker("worker");
  std::string output;
  EXPECT_EQ(ticking->wait(&output), 0) << stderr_text();
  EXPECT_THAT(output, HasSubstr("[x] 2.1 Write two"));
  std::string expected = replace_all(kPlan, "[ ] ", "[x] ");
  EXPECT_EQ(text_of(file), expected) << "only boxes, and the optional one is not there to be done";
  EXPECT_EQ(run({"task", "tick", file, "--url", url_}), 0) << stderr_text();
}

TEST_F(TaskFiles, ChangeByHandBetweenImportAndTickIsKept) {
  const std::string file = write("plan.md", "- [ ] 1. One\n- [ ] 2. Two\n- [ ] 3. Three\n");
  ASSERT_EQ(import(file, {"--parallel"}), 0) << stderr_text();
  for (const char* id : {"plan:1", "plan:2", "plan:3"}) finish(id);
  const std::string edited = "# By hand\n- [ ] 3. Three\n- [ ] 1. Another One\n- [ ] 4. Four\n";
  write("plan.md", edited);
  std::string output;
  EXPECT_EQ(run({"task", "tick", file, "--url", url_, "--dry-run"}, &output), 1);
  EXPECT_EQ(text_of(file), edited);
  EXPECT_EQ(run({"task", "tick", file, "--url", url_, "--json"}, &output), 1);
  EXPECT_EQ(text_of(file), replace_all(edited, "[ ] 3", "[x] 3"));
  EXPECT_THAT(stderr_text(), HasSubstr("plan.md:3: 1 has another title than the task: One"));
  EXPECT_THAT(stderr_text(), HasSubstr("plan.md: 2 is not in the file"));
}

TEST_F(TaskFiles, TickedBoxesAreImportedAsDoneAndNeedNoRun) {
  const std::string file = write("plan.md", "- [x] 1. One\n- [-] 2. Two\n- [ ] 3. Three\n");
  ASSERT_EQ(import(file), 0) << stderr_text();
  EXPECT_EQ(state_of("plan:1"), "done");
  EXPECT_EQ(state_of("plan:2"), "ready");
  EXPECT_EQ(state_of("plan:3"), "blocked");
}

TEST_F(TaskFiles, QueueOfCopyIsImportedWithStatesAndTimes) {
  const std::string file =
      write("jobs.copy",
            "{\"id\":7,\"args\":{\"what\":\"say \\\\\"hi\\\\\"\"},\"state\":\"completed\"}\n"
            "{\"id\":8,\"args\":{\"what\":\"Later\"},\"state\":\"scheduled\",\"queue\":\"py\","
            "\"run_at\":\"2100-01-31 12:00:00+00\",\"dependencies\":[7]}\n");
  EXPECT_EQ(import(file, {"--format", "jsonl"}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("use --format copy"));
  ASSERT_EQ(import(file, {"--format", "copy", "--map", "title=args.what", "--map",
                          "required_skill=queue"}),
            0)
      << stderr_text();
  EXPECT_EQ(state_of("jobs:7"), "done");
  EXPECT_EQ(registry_->get_task("jobs:7").fields["title"], Json("say \"hi\""));
  const Json later = registry_->get_task("jobs:8").to_json();
  EXPECT_EQ(later["required_skill"], Json("py"));
  EXPECT_TRUE(later["not_before"].is_string());
  registry::ClaimRequest request;
  request.task_id = "jobs:8";
  EXPECT_TRUE(registry_->claim(request).empty());
  EXPECT_EQ(later["metadata"]["args"]["what"], Json("Later"));
}

TEST_F(TaskFiles, DefectsAreToldByLineAndNothingIsSubmitted) {
  EXPECT_EQ(import(write("bad.md", "- [ ] 1. One\n- [ ] 1. Two\n- [?] 2. Three\n")), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("line 2: number 1 was given in line 1 already"));
  EXPECT_THAT(stderr_text(), HasSubstr("line 3: a box is"));
  EXPECT_EQ(import(write("bad.jsonl",
                         "{\"id\":1,\"title\":\"A\"}\n"
                         "{\"id\":2,\"title\":\"B\",\"dependencies\":[9]}\n")),
            2);
  EXPECT_THAT(stderr_text(), HasSubstr("line 2/dependencies/0: there is no task bad:9"));
  EXPECT_TRUE(registry_->list_tasksets().empty());
}

TEST_F(TaskFiles, BackupOfARunningRegistryHoldsAllThatWasAcknowledgedBefore) {
  const std::string data = path("services").string();
  std::atomic<bool> stop{false};
  std::atomic<int> acknowledged{0};
  std::thread writing([&] {
    while (!stop) {
      const std::string number = std::to_string(acknowledged + 1);
      registry_->submit(
          Json::object({{"spec_name", "load"},
                        {"tasks", Json::Array{Json::object({{"id", number}, {"title", "T"}})}}}));
      ++acknowledged;
    }
  });
  EXPECT_TRUE(eventually([&] { return acknowledged >= 10; }));
  const std::string file = path("backup").string();
  int before = 0;
  for (int i = 0; i < 3; ++i) {
    before = acknowledged;
    EXPECT_EQ(run({"backup", file, "--data", data, "--force"}), 0) << stderr_text();
  }
  stop = true;
  writing.join();
  EXPECT_EQ(run({"backup", file, "--data", data}), 2) << "it is there already";
  EXPECT_EQ(run({"restore", file, "--data", data}), 3) << "it is served";
  const std::int64_t last = registry_->add_event("load:1", "Note").id;

  services_->signal(SIGTERM);
  EXPECT_EQ(services_->wait(), 0);
  std::string output;
  ASSERT_EQ(run({"restore", file, "--data", data, "--json"}, &output), 0) << stderr_text();
  const Json restored = Json::parse(output);
  EXPECT_GE(*restored["tasks"].as_int(), before);
  EXPECT_TRUE(fs::exists(restored["kept"].string_or("")));

  net::ServiceOptions options;
  options.base_url = serve();
  TaskRegistryClient again(std::move(options));
  for (int i = 1; i <= before; ++i) {
    EXPECT_EQ(again.get_task("load:" + std::to_string(i)).state, registry::TaskState::kReady);
  }
  EXPECT_GT(again.add_event("load:1", "Note").id, last);
}

TEST_F(TaskFiles, FileThatIsNoBackupIsAFailedCheckAndChangesNothing) {
  services_->signal(SIGTERM);
  EXPECT_EQ(services_->wait(), 0);
  const std::string data = path("services").string();
  const std::string before = read_file(path("services/registry.sqlite"), limits::kGiB);
  EXPECT_EQ(run({"restore", write("text", "hello"), "--data", data}), 1);
  EXPECT_THAT(stderr_text(), HasSubstr("cannot be used"));
  EXPECT_EQ(run({"restore", path("none").string(), "--data", data}), 2);
  EXPECT_EQ(run({"backup", path("x").string(), "--data", path("empty").string()}), 2);
  EXPECT_EQ(read_file(path("services/registry.sqlite"), limits::kGiB), before);
}

}  // namespace
}  // namespace necrocode::test
