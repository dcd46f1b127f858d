// The services, the worker and the demo as processes: started, killed, and looked at from outside.
#include <arpa/inet.h>
#include <sys/socket.h>

#include "e2e/services_fixture.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;

TEST_F(Services, WorkerFinishesATaskAndStopsOnSigterm) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  submit(task());
  auto one = worker("worker");
  ASSERT_TRUE(one->read_until("\"type\":\"result\"").has_value()) << stderr_text();
  EXPECT_EQ(state_of("e2e:1"), "done");
  const registry::Task done = registry_->get_task("e2e:1");
  EXPECT_EQ(git({"-C", remote(), "rev-parse", done.metadata["branch"].string_or("-")}),
            done.metadata["commit"].string_or(""));
  EXPECT_EQ(done.artifacts.size(), 5U);
  EXPECT_TRUE(eventually([&] { return leased_slots() == 0; }));
  one->signal(SIGTERM);
  EXPECT_EQ(one->wait(), 0);
}

TEST_F(Services, FailingTestsFailTheTaskReleaseTheSlotAndKeepTheArtifacts) {
  serve_model({answer(change({{"file.txt", "bad\n"}}), 0)});
  submit(task());
  std::string output;
  const int code = run({"run", write_task(task()), "--url", url_, "--llm-endpoint", endpoint(),
                        "--json", "--data", path("data").string(), "--out", path("out").string()},
                       &output);
  EXPECT_EQ(code, 1) << stderr_text();
  const registry::Task failed = registry_->get_task("e2e:1");
  EXPECT_EQ(failed.state, registry::TaskState::kFailed);
  std::vector<std::string> types;
  for (const auto& artifact : failed.artifacts) types.push_back(artifact.type);
  EXPECT_THAT(types, testing::UnorderedElementsAre("diff", "test", "junit", "transcript", "log"));
  EXPECT_EQ(leased_slots(), 0);
}

TEST_F(Services, UsedUpQuotaThenTheProviderIsParkedAndNoOtherTaskTriesIt) {
  Json no_more = raw_answer(429, R"({"error":{"message":"pay","code":"insufficient_quota"}})", 0);
  Json answer_of = no_more["answer"];
  answer_of.set("headers", Json::object({{"Retry-After", "3600"}}));
  no_more.set("answer", answer_of);
  serve_model({no_more});
  submit(task());
  Json second = task();
  second.set("task_id", "e2e:2");
  submit(second);
  auto one = worker("worker", {"--provider", "acme"});
  ASSERT_TRUE(one->read_until("\"type\":\"result\"").has_value()) << stderr_text();
  const auto parked = registry_->parked_providers();
  ASSERT_EQ(parked.size(), 1U);
  EXPECT_EQ(parked[0].name, "acme");
  const registry::Task waiting = registry_->get_task("e2e:1");
  EXPECT_EQ(waiting.state, registry::TaskState::kReady);
  EXPECT_TRUE(waiting.not_before.has_value());
  one->signal(SIGTERM);
  EXPECT_EQ(one->wait(), 0);
  EXPECT_EQ(registry_->get_task("e2e:2").attempt, 0);
  EXPECT_EQ(model_calls(), 1U);
}

TEST_F(Services, WatchThenEventsUntilTheEndAndItsStatus) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  submit(task());
  auto watching = start({"task", "watch", "e2e:1", "--url", url_, "--json"});
  auto all = start({"task", "watch", "e2e", "--url", url_});
  ASSERT_TRUE(watching->read_until("TaskCreated").has_value()) << stderr_text();
  auto one = worker("worker");
  std::string output;
  EXPECT_EQ(watching->wait(&output), 0) << stderr_text();
  EXPECT_THAT(output, HasSubstr("\"event_type\":\"TaskCompleted\""));
  output.clear();
  EXPECT_EQ(all->wait(&output), 0) << stderr_text();
  EXPECT_THAT(output, HasSubstr("e2e:1  TaskCompleted"));
  EXPECT_EQ(run({"task", "watch", "e2e:1", "--url", url_, "--after", "1"}), 0) << stderr_text();

  Json cancelled = task();
  cancelled.set("task_id", "e2e:2");
  submit(cancelled);
  registry_->cancel("e2e:2");
  EXPECT_EQ(run({"task", "watch", "e2e:2", "--url", url_}), 1) << stderr_text();
  EXPECT_EQ(run({"task", "watch", "e2e", "--url", url_}), 1) << stderr_text();
  EXPECT_EQ(run({"task", "watch", "e2e:9", "--url", url_}), 3) << stderr_text();
  EXPECT_EQ(run({"task", "watch", "e2e:1", "--url", url_, "--after", "x"}), 2) << stderr_text();
  EXPECT_EQ(run({"task", "watch", "e2e:1", "--url", url_, "--after", "99999"}), 2) << stderr_text();
  // What comes after the end is shown, and ends it too.
  const auto last = registry_->add_event("e2e:1", "Note").id;
  EXPECT_EQ(
      run({"task", "watch", "e2e:1", "--url", url_, "--after", std::to_string(last - 1)}, &output),
      0);
  EXPECT_THAT(output, HasSubstr("Note"));
}

TEST_F(Services, WatchOfASpecThatCannotGoOnThenItsFailure) {
  registry_->submit(Json::parse(
      R"({"spec_name":"s","tasks":[{"id":"1","title":"a"},{"id":"2","title":"b"},
          {"id":"3","title":"c","dependencies":["1"]}]})"));
  auto watching = start({"task", "watch", "s", "--url", url_});
  ASSERT_TRUE(watching->read_until("s:3  TaskCreated").has_value()) << stderr_text();
  registry_->cancel("s:1");
  // One that is taken away has ended, too.
  registry_->submit(Json::parse(
      R"({"spec_name":"s","replace":true,"tasks":[{"id":"1","title":"a"},
          {"id":"3","title":"c","dependencies":["1"]}]})"));
  EXPECT_EQ(watching->wait(), 1) << stderr_text();
}

TEST_F(Services, FileThatDiffersFromTheRegistryThenNothingIsClaimed) {
  serve_model({});
  submit(task());
  Json other = task();
  other.set("title", "Something else")
      .set("test_commands", std::vector<std::string>{"true"})
      .set("fail_fast", true);  // which is what the registry's means, too
  const auto run_file = [&](const Json& file, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"run",
                                          write_task(file),
                                          "--url",
                                          url_,
                                          "--llm-endpoint",
                                          endpoint(),
                                          "--data",
                                          path("data").string(),
                                          "--out",
                                          path("out").string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  };
  EXPECT_EQ(run_file(other), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("with another title, test_commands;"));
  EXPECT_EQ(run_file(task(), {"--repo", "/elsewhere.git"}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("with another --repo;"));
  Json wrong = task();
  wrong.set("timeout_seconds", 0);
  EXPECT_EQ(run_file(wrong), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("/timeout_seconds"));
  EXPECT_EQ(registry_->get_task("e2e:1").attempt, 0);
}

TEST_F(Services, FileThatOnlyNamesTheTaskThenTheRegistryHasTheRest) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  submit(task());
  EXPECT_EQ(run({"run", write_task(Json::object({{"task_id", "e2e:1"}})), "--url", url_,
                 "--llm-endpoint", endpoint(), "--data", path("data").string()}),
            0)
      << stderr_text();
  EXPECT_EQ(state_of("e2e:1"), "done");
  // Nothing is left to run of it, and that is what is said.
  EXPECT_EQ(run({"run", write_task(task()), "--url", url_, "--llm-endpoint", endpoint(), "--data",
                 path("data").string()}),
            2);
  EXPECT_THAT(stderr_text(), HasSubstr("task e2e:1 is done: nothing is left to run"));
}

TEST_F(Services, TaskWithoutARepositoryThenTheFlagNamesOne) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json without = task();
  without.erase("repo_url");
  submit(without);
  EXPECT_EQ(run({"run", write_task(without), "--repo", remote(), "--url", url_, "--llm-endpoint",
                 endpoint(), "--data", path("data").string()}),
            0)
      << stderr_text();
}

TEST_F(Services, TaskThatIsNotReadyThenItsStateAndTheWayOut) {
  serve_model({answer(change({{"file.txt", "bad\n"}}), 0)});
  submit(task());
  const std::vector<std::string> command = {"run",    write_task(task()),   "--url",
                                            url_,     "--llm-endpoint",     endpoint(),
                                            "--data", path("data").string()};
  EXPECT_EQ(run(command), 1);
  EXPECT_EQ(run(command), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("is failed: `necrocode task retry e2e:1` makes it ready"));
  std::string output;
  EXPECT_EQ(run({"task", "list", "--url", url_}, &output), 0);
  EXPECT_THAT(output, HasSubstr("REASON"));
  EXPECT_THAT(output, HasSubstr("the tests do not pass"));
}

TEST_F(Services, SubmissionThatRunnersWouldRefuseThenAllOfItIsSaidAndNothingKept) {
  const auto submit_file = [&](const Json& taskset) {
    fs::remove(path("stderr"));
    write_file_atomic(path("tasks.json"), taskset.dump());
    return run({"task", "submit", path("tasks.json").string(), "--url", url_});
  };
  const auto one = [&](const std::string& id) {
    Json json = task();
    json.erase("task_id");
    return json.set("id", id);
  };
  Json untitled = one("1");
  untitled.erase("title");
  const Json wrong = one("two words").set("timeout_seconds", 0.5).set("executor", "magic");
  EXPECT_EQ(submit_file(Json::object(
                {{"spec_name", "e2e"}, {"tasks", Json::Array{untitled, wrong, Json("x")}}})),
            2);
  for (const char* pointer : {"/tasks/0/title", "/tasks/1/id", "/tasks/1/timeout_seconds",
                              "/tasks/1/executor", "/tasks/2"})
    EXPECT_THAT(stderr_text(), HasSubstr(pointer));
  EXPECT_TRUE(registry_->list_tasksets().empty());

  EXPECT_EQ(submit_file(task()), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("this is one task; use `necrocode run`"));

  EXPECT_EQ(submit_file(Json::object(
                {{"spec_name", "e2e"}, {"tasks", Json::Array{one("1").set("titel", "x")}}})),
            0);
  EXPECT_THAT(stderr_text(), HasSubstr("/tasks/0: unknown key \"titel\""));
}

TEST_F(Services, TaskThatIsNotValidThenTheWorkersOutputHasItsResult) {
  serve_model({});
  Json invalid = task();
  invalid.erase("title");
  submit(invalid);
  auto one = worker("worker");
  const auto line = one->read_until("\"type\":\"result\"");
  ASSERT_TRUE(line.has_value()) << stderr_text();
  EXPECT_THAT(*line, HasSubstr("/title"));
  EXPECT_TRUE(eventually([&] { return state_of("e2e:1") == "failed"; }));
}

TEST_F(Services, ListLongerThanItsLimitThenTheRestOnRequest) {
  Json tasks = Json::array();
  for (int i = 1; i <= 5; ++i) {
    Json one = task();
    one.erase("task_id");
    tasks.push_back(one.set("id", std::to_string(i)));
  }
  registry_->submit(Json::object({{"spec_name", "e2e"}, {"tasks", tasks}}));
  const auto listed = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"task", "list", "--url", url_};
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::string output;
    EXPECT_EQ(run(arguments, &output), 0) << stderr_text();
    return output;
  };
  EXPECT_THAT(listed({"--limit", "3"}), HasSubstr("… more; --all shows them"));
  EXPECT_THAT(listed({"--limit", "5"}), testing::Not(HasSubstr("more")));
  const Json whole = Json::parse(listed({"--all", "--json", "--limit", "3"}));
  EXPECT_EQ(whole["items"].size(), 5U);
  EXPECT_EQ(whole["more"], Json(false));
}

TEST_F(Services, ArtifactCommandsThenByUriOrIdAndOneDocumentWithJson) {
  const auto json = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--url", url_, "--json"});
    std::string output;
    EXPECT_EQ(run(arguments, &output), 0) << stderr_text();
    return Json::try_parse(output).value_or(Json());
  };
  const std::string file = path("clone/README").string();
  const std::string uri =
      json({"artifact", "put", "log", file, "--task", "e2e:1"})["uri"].string_or("");
  const Json info = json({"artifact", "info", uri});
  const std::string id = info["id"].string_or("");
  EXPECT_EQ(info["task_id"], Json("e2e:1"));
  EXPECT_EQ(info["name"], Json("README"));
  EXPECT_EQ(json({"artifact", "info", id})["uri"], Json(uri));
  EXPECT_EQ(json({"artifact", "get", id, path("got").string()})["file"],
            Json(path("got").string()));
  EXPECT_EQ(read_file(path("got"), 100), "hello\n");
  std::string output;
  EXPECT_EQ(run({"artifact", "list", "--url", url_}, &output), 0);
  EXPECT_THAT(output, HasSubstr("e2e:1  README"));
  EXPECT_EQ(run({"artifact", "cat", "http://other.example:1/artifacts/" + id, "--url", url_}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("give the id alone"));
  EXPECT_EQ(json({"artifact", "rm", id})["removed"], Json(id));
  EXPECT_EQ(run({"artifact", "info", id, "--url", url_}), 3);
}

TEST_F(Services, CommandsThatReportThenOneDocumentWithJson) {
  submit(task());
  const auto json = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--url", url_, "--json"});
    std::string output;
    EXPECT_EQ(run(arguments, &output), 0) << stderr_text();
    return Json::try_parse(output).value_or(Json());
  };
  EXPECT_EQ(json({"task", "cancel", "e2e:1"})["state"], Json("cancelled"));
  json({"pool", "add", remote(), "--name", "one", "--slots", "1"});
  EXPECT_EQ(json({"pool", "remove", "one"})["removed"], Json("one"));
  // Only what a command uses is an option of it.
  EXPECT_EQ(run({"task", "list", "--artifacts", url_}), 2);
  EXPECT_EQ(run({"pool", "list", "--registry", url_}), 2);
  EXPECT_EQ(run({"artifact", "cat", "x", "--json"}), 2);
  EXPECT_EQ(run({"task", "graph", "e2e", "--json"}), 2);
  EXPECT_EQ(run({"pool", "add", remote(), "--slots", "9", "--max-slots", "3", "--url", url_}), 2);
}

TEST_F(Services, PlanAndDryRunLeaveTheTaskAlone) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  submit(task());
  for (const char* how : {"--plan", "--dry-run"}) {
    EXPECT_EQ(run({"run", write_task(task()), how, "--url", url_, "--llm-endpoint", endpoint(),
                   "--data", path("data").string(), "--out", path("out").string()}),
              0)
        << stderr_text();
    EXPECT_EQ(state_of("e2e:1"), "ready");
    EXPECT_EQ(registry_->get_task("e2e:1").attempt, 0);
    EXPECT_TRUE(registry_->get_task("e2e:1").artifacts.empty());
  }
  EXPECT_EQ(model_calls(), 1U);
}

TEST_F(Services, WorkerWithoutAFolderEndsBeforeItClaims) {
  serve_model({});
  submit(task());
  write_file_atomic(path("file"), "");
  EXPECT_NE(
      run({"worker", "--url", url_, "--llm-endpoint", endpoint(), "--data", path("file").string()}),
      0);
  EXPECT_EQ(registry_->get_task("e2e:1").attempt, 0);
}

// An artifact store that accepts and never answers: the run still ends, reported and released.
TEST_F(Services, StalledArtifactStoreDoesNotKeepTheTask) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  submit(task());
  const FileDescriptor listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener.get(), 16), 0);
  ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string stalled = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  EXPECT_EQ(
      run({"run", write_task(task()), "--url", url_, "--artifacts", stalled, "--llm-endpoint",
           endpoint(), "--json", "--data", path("data").string(), "--out", path("out").string()}),
      0)
      << stderr_text();
  EXPECT_EQ(state_of("e2e:1"), "done");
  EXPECT_EQ(leased_slots(), 0);
  EXPECT_TRUE(fs::exists(path("out/diff.patch")));
}

TEST_F(Services, SigtermHandsTheTaskBackAndReleasesTheSlot) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json hanging = task();
  hanging.set("test_commands", std::vector<std::string>{"sleep 1000"});
  submit(hanging);
  write_file_atomic(path("config.yaml"), "drain_seconds: 0\n");
  auto one = worker("worker", {"--no-baseline", "--config", path("config.yaml").string()});
  ASSERT_TRUE(one->read_until("\"phase\":\"test\"").has_value()) << stderr_text();
  one->signal(SIGTERM);
  EXPECT_EQ(one->wait(nullptr, std::chrono::seconds{20}), 0) << stderr_text();
  EXPECT_EQ(state_of("e2e:1"), "ready");
  EXPECT_EQ(leased_slots(), 0);
}

TEST_F(Services, SigtermOfARunHandsTheTaskBackAndReleasesTheSlot) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json hanging = task();
  hanging.set("test_commands", std::vector<std::string>{"sleep 1000"});
  submit(hanging);
  auto one = start({"run", write_task(hanging), "--url", url_, "--llm-endpoint", endpoint(),
                    "--no-baseline", "--json", "--data", path("data").string()});
  ASSERT_TRUE(one->read_until("\"phase\":\"test\"").has_value()) << stderr_text();
  one->signal(SIGTERM);
  EXPECT_EQ(one->wait(nullptr, std::chrono::seconds{20}), 5) << stderr_text();
  EXPECT_EQ(state_of("e2e:1"), "ready");
  EXPECT_EQ(leased_slots(), 0);
}

TEST_F(Services, KilledWorkersTaskIsFinishedByAnother) {
  serve_model({answer(change({{"file.txt", "good\n"}}), 0)});
  Json hanging = task();
  // Hangs only while the first worker runs it.
  hanging.set("test_commands", std::vector<std::string>{"sh wait.sh", "grep -q good file.txt"});
  write_file_atomic(path("clone/wait.sh"), "test -e go || sleep 1000\n");
  git({"-C", path("clone").string(), "add", "-A"});
  git({"-C", path("clone").string(), "commit", "--quiet", "-m", "wait"});
  git({"-C", path("clone").string(), "push", "--quiet", "origin", "HEAD:main"});
  submit(hanging);
  auto first = worker("first", {"--no-baseline", "--lease-seconds", "2"});
  ASSERT_TRUE(first->read_until("\"phase\":\"test\"").has_value()) << stderr_text();
  first->signal(SIGKILL);
  EXPECT_EQ(first->wait(), 128 + SIGKILL);
  write_file_atomic(path("clone/go"), "");
  git({"-C", path("clone").string(), "add", "-A"});
  git({"-C", path("clone").string(), "commit", "--quiet", "-m", "go"});
  git({"-C", path("clone").string(), "push", "--quiet", "origin", "HEAD:main"});
  auto second = worker("first", {"--no-baseline", "--lease-seconds", "2"});
  ASSERT_TRUE(second->read_until("\"type\":\"result\"").has_value()) << stderr_text();
  for (const auto& run : fs::directory_iterator(path("first/runs"))) {
    for (const auto& entry : fs::directory_iterator(run)) {
      EXPECT_FALSE(entry.is_directory()) << "left by the killed worker: " << entry.path();
    }
  }
  EXPECT_EQ(state_of("e2e:1"), "done");
  EXPECT_EQ(registry_->get_task("e2e:1").attempt, 2);
  EXPECT_TRUE(eventually([&] { return leased_slots() == 0; }));
}

TEST_F(Services, CancelledTaskStopsItsRun) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json hanging = task();
  hanging.set("test_commands", std::vector<std::string>{"sleep 1000"});
  submit(hanging);
  auto one = worker("worker", {"--no-baseline", "--lease-seconds", "3"});
  ASSERT_TRUE(one->read_until("\"phase\":\"test\"").has_value()) << stderr_text();
  registry_->cancel("e2e:1", "changed our minds");
  ASSERT_TRUE(one->read_until("\"type\":\"result\"").has_value()) << stderr_text();
  EXPECT_EQ(state_of("e2e:1"), "cancelled");
}

TEST_F(Services, CancelledTaskThenCountedAsCancelledNotAsHandedBack) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  Json hanging = task();
  hanging.set("test_commands", std::vector<std::string>{"sleep 1000"});
  submit(hanging);
  auto one = start({"worker", "--url", url_, "--llm-endpoint", endpoint(), "--data",
                    path("worker").string(), "--no-baseline", "--lease-seconds", "2"});
  ASSERT_TRUE(one->read_until("e2e:1  test").has_value()) << stderr_text();
  registry_->cancel("e2e:1", "changed our minds");
  ASSERT_TRUE(one->read_until("e2e:1  cancelled").has_value()) << stderr_text();
  one->signal(SIGTERM);
  std::string output;
  EXPECT_EQ(one->wait(&output), 0);
  EXPECT_THAT(output, HasSubstr("0 failed, 1 cancelled, 0 handed back"));
}

TEST_F(Services, WorkerTellsOfItselfAndOfTheHostsItTalksTo) {
  serve_model({answer(change({{"file.txt", "good\n"}}))});
  submit(task());
  auto one = worker("worker", {"--health-listen", "127.0.0.1:0"});
  const Json listening = Json::try_parse(one->read_line().value_or("")).value_or(Json());
  ASSERT_EQ(listening["type"], Json("listening")) << stderr_text();
  const auto url = net::Url::parse(listening["url"].string_or(""));
  const auto ask = [&](const std::string& path) {
    return RawClient(static_cast<std::uint16_t>(url->port))
        .call("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n");
  };
  ASSERT_TRUE(one->read_until("\"type\":\"result\"").has_value()) << stderr_text();
  const RawAnswer health = ask("/health");
  EXPECT_EQ(health.status, 200);
  EXPECT_EQ(health.json()["components"]["worker"], Json("ok"));
  EXPECT_EQ(health.json()["components"][url_], Json("ok"));
  const std::string metrics = ask("/metrics").body;
  EXPECT_THAT(metrics, HasSubstr("necrocode_client_calls_total{service=\"task-registry\","
                                 "operation=\"claim\",end=\"success\"}"));
  EXPECT_THAT(metrics, HasSubstr("necrocode_client_breaker_state{host=\"" + url_ +
                                 "\",state=\"closed\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("process_threads"));
  one->signal(SIGTERM);
  EXPECT_EQ(one->wait(), 0);
}

TEST_F(Services, ServicesKilledAndRestartedKeepWhatTheyAcknowledged) {
  serve_model({});
  submit(task());
  registry_->add_event("e2e:1", "Note", Json::object({{"n", 1}}));
  services_->signal(SIGKILL);
  services_->wait();
  url_ = serve();
  net::ServiceOptions options;
  options.base_url = url_;
  TaskRegistryClient again(std::move(options));
  EXPECT_EQ(again.get_task("e2e:1").state, registry::TaskState::kReady);
  bool found = false;
  for (const auto& event : again.events({.task_id = "e2e:1"}).items)
    found = found || event.event_type == "Note";
  EXPECT_TRUE(found);
}

TEST_F(Services, HealthAndCommandsSeeTheServices) {
  std::string output;
  EXPECT_EQ(run({"health", "--url", url_, "--json"}, &output), 0) << stderr_text();
  EXPECT_THAT(output, HasSubstr("\"ok\": true"));
  EXPECT_EQ(run({"health", "--registry", "http://127.0.0.1:1", "--json"}), 1);
  submit(task());
  output.clear();
  EXPECT_EQ(run({"task", "list", "--url", url_}, &output), 0);
  EXPECT_THAT(output, HasSubstr("e2e:1"));
  EXPECT_EQ(run({"task", "show", "e2e:99", "--url", url_}), 3);
  output.clear();
  EXPECT_EQ(run({"artifact", "put", "log", path("clone/README").string(), "--url", url_}, &output),
            0);
  std::string content;
  EXPECT_EQ(run({"artifact", "cat", std::string(trim(output)), "--url", url_}, &content), 0);
  EXPECT_EQ(content, "hello\n");
}

TEST_F(Services, PoolsFolderGoneThenItsHealthAloneSaysSo) {
  fs::remove_all(path("services/pools"));
  std::string output;
  EXPECT_EQ(run({"health", "--url", url_, "--json"}, &output), 1);
  const Json services = Json::parse(output)["services"];
  EXPECT_THAT(services["repo-pool"]["detail"].string_or(""), HasSubstr("is gone"));
  EXPECT_EQ(services["task-registry"]["healthy"].as_bool(), true);
  EXPECT_EQ(services["artifact-store"]["healthy"].as_bool(), true);
}

// The protocol as existing programs use it: no tokens, no keys, Unix times, bare ids, a multipart
// part named `file`, empty bodies.
TEST_F(Services, ExistingClientsCallsWorkLiterally) {
  submit(task());
  const auto http = net::shared_http_client();
  const auto call = [&](const std::string& method, const std::string& target,
                        const std::string& body, const std::string& type = "application/json") {
    net::HttpRequest request;
    request.method = method;
    request.url = target.starts_with("http") ? target : url_ + target;
    request.body = body;
    if (!body.empty()) request.headers.set("Content-Type", type);
    return http->send(request, CallContext().within(std::chrono::seconds{30}));
  };
  EXPECT_EQ(call("GET", "/health", "").status, 200);
  EXPECT_EQ(
      call("PUT", "/tasks/1/status",
           R"({"status":"in_progress","metadata":{"runner_id":"r"},"updated_at":1735689600.25})")
          .status,
      200);
  EXPECT_EQ(call("POST", "/tasks/1/events",
                 R"({"event_type":"TaskStarted","data":{"a":1},"timestamp":1735689600.5})")
                .status,
            201);
  EXPECT_EQ(
      call(
          "POST", "/tasks/1/artifacts",
          R"({"type":"diff","uri":"file:///x","size_bytes":3,"metadata":{},"created_at":1735689600})")
          .status,
      201);
  EXPECT_EQ(call("PUT", "/tasks/1/status", R"({"status":"done"})").status, 200);
  const auto shown = Json::parse(call("GET", "/tasks/1", "").body);
  EXPECT_EQ(shown["status"], Json("done"));
  EXPECT_EQ(shown["state"], Json("done"));

  const auto allocated = call(
      "POST", "/slots/allocate",
      Json::object({{"repo_url", remote()}, {"required_by", "r"}, {"timeout_seconds", 30}}).dump());
  ASSERT_EQ(allocated.status, 200) << allocated.body;
  const Json slot = Json::parse(allocated.body);
  EXPECT_EQ(read_file(fs::path(slot["slot_path"].string_or("")) / "README", 100), "hello\n");
  const std::string slot_path = "/slots/" + slot["slot_id"].string_or("");
  EXPECT_EQ(Json::parse(call("GET", slot_path, "").body)["slot_id"], slot["slot_id"]);
  EXPECT_EQ(call("POST", slot_path + "/release", "").status, 200);
  EXPECT_EQ(call("POST", slot_path + "/release", "").status, 200);

  const std::string form =
      "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"diff.txt\"\r\n\r\nhello "
      "artifact\r\n"
      "--X\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\ndiff\r\n"
      "--X\r\nContent-Disposition: form-data; "
      "name=\"metadata\"\r\n\r\n{\"task_id\":\"1\"}\r\n--X--\r\n";
  const auto uploaded = call("POST", "/artifacts", form, "multipart/form-data; boundary=X");
  ASSERT_EQ(uploaded.status, 201) << uploaded.body;
  const std::string uri = Json::parse(uploaded.body)["uri"].string_or("");
  EXPECT_EQ(call("GET", uri, "").body, "hello artifact");
  EXPECT_EQ(call("GET", "/artifacts/metadata?uri=" + percent_encode(uri), "").status, 200);
}

TEST_F(EndToEnd, AddressThatOthersReachThenNothingListensThere) {
  const std::string cassette = path("cassette.json").string();
  write_file_atomic(cassette, R"({"version": 1, "entries": []})");
  const std::string everywhere = std::string("0.0.0.") + "0:0";
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"serve", "--data", path("data").string()},
        std::vector<std::string>{"llm", "serve-replay", cassette}}) {
    std::vector<std::string> arguments = command;
    arguments.insert(arguments.end(), {"--listen", everywhere});
    EXPECT_EQ(run(arguments), 6) << stderr_text();
    arguments.back() = "nonsense";
    EXPECT_EQ(run(arguments), 2) << stderr_text();
  }
  for (const char* url : {"nonsense", "ftp://a/", "http://user:key@a/", "http://a/?q"}) {
    EXPECT_EQ(run({"serve", "--public-url", url, "--data", path("data").string()}), 2);
    EXPECT_THAT(stderr_text(), HasSubstr("--public-url takes"));
  }
}

TEST_F(EndToEnd, SecondServeOnTheSameDataIsRefusedNamingTheFolder) {
  serve();
  for (const char* only : {"registry", "pool", "artifacts"}) {
    fs::remove(path("stderr"));
    EXPECT_EQ(run({"serve", "--listen", "127.0.0.1:0", "--only", only, "--data",
                   path("services").string()}),
              3);
    EXPECT_THAT(stderr_text(), HasSubstr("another process"));
    EXPECT_THAT(stderr_text(), HasSubstr(path("services").string()));
  }
}

TEST_F(EndToEnd, PortInUseThenUsageErrorThatSaysHowToGetAFreeOne) {
  const std::string url = serve();
  EXPECT_EQ(run({"serve", "--listen", url.substr(7), "--data", path("other").string()}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("--listen 127.0.0.1:0"));
}

TEST_F(EndToEnd, UnknownOptionsAndCommandsAreUsageErrors) {
  EXPECT_EQ(run({"run"}), 2);
  EXPECT_EQ(run({"serv"}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("\"serv\"; did you mean \"serve\""));
  EXPECT_EQ(run({"task", "lits"}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("\"lits\"; did you mean \"list\""));
  std::string output;
  EXPECT_EQ(run({"--version"}, &output), 0);
  EXPECT_THAT(output, HasSubstr("necrocode "));
  output.clear();
  EXPECT_EQ(run({"serve", "--help"}, &output), 0);
  EXPECT_THAT(output, HasSubstr("127.0.0.1:8000"));
  EXPECT_EQ(run({"serve", "--frobnicate"}), 2);
  EXPECT_EQ(run({"--help"}), 0);
}

TEST_F(EndToEnd, DemoHoldsAllItsChecks) {
  // It works from nothing: what the user has set is not its own.
  write_file_atomic(path("config.yaml"), "unknown_key: 1\n");
  extra_env_ = {"NECROCODE_CONFIG=" + path("config.yaml").string(),
                "TASK_REGISTRY_URL=http://127.0.0.1:1", "OPENAI_API_KEY=", "LLM_API_KEY=short"};
  std::string output;
  EXPECT_EQ(run({"demo", "--json"}, &output), 0) << output << stderr_text();
  const Json summary = Json::parse(output, "the demo's summary");
  EXPECT_EQ(summary["ok"], Json(true));
  EXPECT_GE(summary["tasks"].size(), 5U);
  for (const Json& check : summary["checks"].items()) {
    EXPECT_EQ(check["ok"], Json(true)) << check.dump();
  }
}

TEST_F(Services, MetricsTellWhatIsServedAndWhatIsThere) {
  submit(task());
  registry_->get_task("e2e:1");
  EXPECT_THROW(registry_->get_task("e2e:7"), NotFound);
  net::HttpRequest request;
  request.url = url_ + "/metrics";
  const net::HttpResponse answer = net::shared_http_client()->send(request, {});
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.get("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
  for (const char* line :
       {"necrocode_http_requests_total{method=\"GET\",route=\"/tasks/{id}\",status=\"200\"} 1",
        "necrocode_http_requests_total{method=\"GET\",route=\"/tasks/{id}\",status=\"404\"} 1",
        "necrocode_http_request_seconds_count{route=\"/tasksets\"} 1",
        "necrocode_tasks{state=\"ready\"} 1", "necrocode_tasks{state=\"done\"} 0",
        "necrocode_artifact_stored_bytes 0"}) {
    EXPECT_THAT(answer.body, HasSubstr(std::string(line) + "\n"));
  }
}

}  // namespace
}  // namespace necrocode::test
