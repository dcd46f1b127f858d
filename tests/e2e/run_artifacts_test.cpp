// What a run brings to the artifact store: its log while it grows, and the rest also when the store
// was not there, or took something away.
#include <set>

#include "e2e/services_fixture.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;

class RunArtifacts : public Services {
 protected:
  void SetUp() override {
    Services::SetUp();
    net::ServiceOptions options;
    options.base_url = url_;
    store_ = std::make_unique<ArtifactStoreClient>(std::move(options));
    serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  }

  std::vector<ArtifactInfo> kept(const std::string& task, const std::string& type = "") {
    ArtifactQuery query;
    query.task = task;
    query.type = type;
    return store_->list(query).items;
  }

  /// A worker on a task whose tests say "first words" and then take longer than the log waits.
  std::unique_ptr<Program> work_slowly() {
    Json slow = task();
    slow.set("test_commands",
             std::vector<std::string>{"echo first words; sleep 3; grep -q good file.txt"});
    submit(slow);
    return worker("worker", {"--no-baseline"});
  }
  /// Its log as it grows, once those words have come.
  std::optional<ArtifactInfo> growing_log() {
    std::optional<ArtifactInfo> log;
    eventually([&] {
      for (const ArtifactInfo& one : kept("e2e:1", "log")) {
        if (store_->download(one.uri).find("first words") != std::string::npos) log = one;
      }
      return log.has_value();
    });
    return log;
  }
  std::string log_of_task() {
    for (const registry::ArtifactRef& one : registry_->get_task("e2e:1").artifacts) {
      if (one.type == "log") return one.uri;
    }
    return {};
  }

  /// One run of a task that the registry does not know, with a data folder of its own.
  int run_alone(const std::string& number, const std::string& store) {
    write_file_atomic(path("config.yaml"), "network_retry_count: 0\n");
    return run({"run", write_task(task(number)), "--config", path("config.yaml").string(), "--data",
                path("alone").string(), "--artifacts", store, "--llm-endpoint", endpoint()});
  }

  std::unique_ptr<ArtifactStoreClient> store_;
};

TEST_F(RunArtifacts, LogGrowsInTheStoreAndIsSealedAtTheEnd) {
  const auto program = work_slowly();
  const auto growing = growing_log();
  ASSERT_TRUE(growing.has_value()) << stderr_text();
  EXPECT_FALSE(growing->sealed);
  ASSERT_TRUE(program->read_until("\"type\":\"result\"").has_value()) << stderr_text();
  EXPECT_EQ(log_of_task(), growing->uri);
  EXPECT_TRUE(store_->get_metadata(growing->uri).sealed);
  EXPECT_THAT(store_->download(growing->uri), HasSubstr("ended: done"));
}

TEST_F(RunArtifacts, LogThatIsTakenAwayMeanwhileIsUploadedWhole) {
  const auto program = work_slowly();
  const auto growing = growing_log();
  ASSERT_TRUE(growing.has_value()) << stderr_text();
  store_->remove(growing->id);
  ASSERT_TRUE(program->read_until("\"type\":\"result\"").has_value()) << stderr_text();
  EXPECT_NE(log_of_task(), growing->uri);
  const std::string log = store_->download(log_of_task());
  EXPECT_THAT(log, HasSubstr("first words"));
  EXPECT_THAT(log, HasSubstr("ended: done"));
}

TEST_F(RunArtifacts, StoreThatWasNotThereGetsThemFromTheNextRun) {
  EXPECT_EQ(run_alone("8", "http://127.0.0.1:1"), 0) << stderr_text();
  EXPECT_FALSE(fs::is_empty(path("alone/owed")));
  EXPECT_TRUE(kept("e2e:8").empty());
  EXPECT_EQ(run_alone("9", url_), 0) << stderr_text();
  EXPECT_TRUE(fs::is_empty(path("alone/owed")));
  std::set<std::string> types;
  for (const ArtifactInfo& one : kept("e2e:8")) {
    types.insert(one.type);
    EXPECT_TRUE(one.name.starts_with("runner-")) << one.name;
  }
  EXPECT_EQ(types, (std::set<std::string>{"diff", "junit", "log", "test", "transcript"}));
}

TEST_F(RunArtifacts, NoteThatCannotBeReadFailsNoRun) {
  fs::create_directories(path("alone/owed"));
  write_file_atomic(path("alone/owed/torn.json"), "");
  write_file_atomic(path("alone/owed/large.json"), std::string(100'000, 'x'));
  EXPECT_EQ(run_alone("8", "http://127.0.0.1:1"), 0) << stderr_text();
  EXPECT_EQ(run_alone("9", url_), 0) << stderr_text();
  EXPECT_EQ(kept("e2e:8").size(), 5U);  // the others' turn comes all the same
  EXPECT_THAT(stderr_text(), HasSubstr("not a note of what a run owes"));
}

// A note says which folder goes, and only a worker's own may.
TEST_F(RunArtifacts, NoteOfAFolderThatIsNoWorkersRemovesNothing) {
  EXPECT_EQ(run_alone("8", "http://127.0.0.1:1"), 0) << stderr_text();
  fs::create_directories(path("precious"));
  write_file_atomic(path("precious/run.log"), "mine\n");
  fs::create_directories(path("alone/owed"));
  write_file_atomic(path("alone/owed/planted.json"),
                    Json::object({{"folder", path("precious").string()},
                                  {"task_id", "e2e:7"},
                                  {"runner_id", "runner-x"},
                                  {"disposable", true},
                                  {"delivered", true}})
                        .dump());
  EXPECT_EQ(run_alone("9", url_), 0) << stderr_text();
  EXPECT_EQ(read_file(path("precious/run.log"), 100), "mine\n");
}

}  // namespace
}  // namespace necrocode::test
