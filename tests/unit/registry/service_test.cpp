#include "necrocode/registry/service.hpp"

#include "necrocode/base/base64.hpp"
#include "necrocode/registry/client.hpp"
#include "store_fixture.hpp"
#include "support/raw_client.hpp"

namespace necrocode::registry {
namespace {

using std::chrono::seconds;
using test::RawAnswer;
using test::RawClient;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// The shipped service on a real socket; the clock is the test's.
class ServiceTest : public testing::Test {
 protected:
  ServiceTest() {
    service = std::make_unique<RegistryService>(
        std::make_unique<SqliteTaskStore>(folder.path() / "registry.db", clock), clock);
    net::Api api(server);
    service->add_routes(api);
    server.start();
  }
  ~ServiceTest() override {
    server.stop();
    service.reset();
  }

  /// One call on a connection of its own.
  RawAnswer call(const std::string& method, const std::string& path, const std::string& body = {},
                 const std::string& headers = {}) {
    RawClient client(server.port());
    return client.call(request(method, path, body, headers));
  }
  static std::string request(const std::string& method, const std::string& path,
                             const std::string& body = {}, const std::string& headers = {}) {
    return method + " " + path + " HTTP/1.1\r\nHost: x\r\n" + headers +
           "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + body;
  }
  void submit(const std::string& spec, const std::string& tasks) {
    const RawAnswer answer =
        call("POST", "/tasksets", R"({"spec_name":")" + spec + R"(","tasks":)" + tasks + "}");
    ASSERT_EQ(answer.status, 201) << answer.body;
  }
  TemporaryDirectory folder;
  ManualClock clock;
  net::HttpServer server;
  std::unique_ptr<RegistryService> service;
};

TaskRegistryClient client_for(const net::HttpServer& server) {
  return TaskRegistryClient(server.url());
}

Json taskset_json() {
  return Json::parse(R"({"spec_name":"app","metadata":{"team":"x"},"tasks":[
      {"id":"1.1","title":"Parse","priority":2,"test_commands":["make test"],"colour":"red"},
      {"id":"app:1.2","title":"Print","dependencies":["1.1"],"metadata":{"k":[1,null]}}]})");
}

TEST_F(ServiceTest, WholeLifeOfATaskThroughTheClient) {
  TaskRegistryClient client = client_for(server);
  const Taskset taskset = client.submit(taskset_json());
  EXPECT_EQ(taskset.version, 1);
  EXPECT_EQ(taskset.tasks.at(1).dependencies.at(0), "app:1.1");
  EXPECT_EQ(taskset.tasks.at(0).fields["test_commands"].size(), 1u);
  EXPECT_TRUE(taskset.tasks.at(0).fields["colour"].is_null());  // unknown fields are not kept

  ClaimRequest request;
  request.runner_id.value = "runner-7";
  const auto claimed = client.claim(request);
  ASSERT_EQ(claimed.size(), 1u);
  EXPECT_EQ(claimed[0].task.id, "app:1.1");
  EXPECT_EQ(claimed[0].lease, seconds(60));
  EXPECT_EQ(claimed[0].expires_at, clock.system_now() + seconds(60));
  EXPECT_THAT(client.claim(request), IsEmpty());
  EXPECT_FALSE(client.heartbeat("app:1.1", claimed[0].lease_token).cancel_requested);
  EXPECT_THROW(client.heartbeat("app:1.1", LeaseToken{"no"}), Conflict);
  EXPECT_THROW(client.heartbeat("app:7", LeaseToken{"no"}), NotFound);
  EXPECT_EQ(client.add_event("1.1", "RunnerStarted", Json::object({{"pid", 7}})).attempt, 1);
  client.add_artifact("1.1", "log", "http://store/1", 12, Json::object(), claimed[0].lease_token);
  EXPECT_THROW(client.update_task_status("1.1", "done"), Conflict);

  Completion completion;
  completion.lease_token = claimed[0].lease_token;
  completion.metadata = Json::object({{"commit", "abc"}});
  completion.events.push_back({0, "", "PushConfirmed", Json::object(), clock.system_now(), {}, 0});
  EXPECT_EQ(client.complete("app:1.1", completion).state, TaskState::kDone);
  EXPECT_THROW(client.cancel("app:1.1"), Conflict);

  const auto next = client.claim(request);
  ASSERT_EQ(next.size(), 1u);
  EXPECT_THAT(next[0].task.base_commits, ElementsAre("abc"));
  EXPECT_EQ(next[0].task.metadata, Json::parse(R"({"k":[1,null]})"));
  EXPECT_TRUE(client.cancel("app:1.2", "enough").cancel_requested);
  EXPECT_TRUE(client.heartbeat("app:1.2", next[0].lease_token).cancel_requested);
  completion = {};
  completion.lease_token = next[0].lease_token;
  completion.status = TaskState::kFailed;
  completion.failure = Failure{"tests", "red", {}};
  EXPECT_EQ(client.complete("app:1.2", completion).failure["class"], Json("tests"));
  EXPECT_EQ(client.retry("app:1.2").state, TaskState::kReady);

  std::vector<std::string> types;
  for (const Event& event : client.events({.task_id = "app:1.1"}).items)
    types.push_back(event.event_type);
  EXPECT_THAT(types, ElementsAre("TaskCreated", "TaskAssigned", "RunnerStarted", "PushConfirmed",
                                 "TaskCompleted"));
  EXPECT_EQ(client.get_task("app:1.1").artifacts.at(0).size_bytes, 12);
  TaskQuery query;
  query.states = {TaskState::kDone, TaskState::kReady};
  query.limit = 1;
  TaskPage page = client.list(query);
  EXPECT_EQ(page.items.at(0).id, "app:1.1");
  query.cursor = page.next_cursor.value();
  page = client.list(query);
  EXPECT_EQ(page.items.at(0).id, "app:1.2");
  EXPECT_FALSE(page.next_cursor.has_value());
  EXPECT_EQ(client.list_tasksets().at(0).counts["done"], Json(1));
  EXPECT_EQ(client.get_taskset("app").tasks.size(), 2u);
  EXPECT_EQ(client.graph("app")["levels"], Json::parse(R"([["app:1.1"],["app:1.2"]])"));
  EXPECT_THAT(client.graph("app", "mermaid").string_or(""), HasSubstr("t0 --> t1"));
  EXPECT_THAT(client.graph("app", "dot").string_or(""), HasSubstr("\"app:1.1\" -> \"app:1.2\""));
}

// SPEC section 3: no tokens, no keys, Unix times, bare ids, literally as existing programs send
// them.
TEST_F(ServiceTest, ExistingClientsCallsWorkLiterally) {
  submit("chat-app", R"([{"id":"1.1","title":"Login"}])");
  RawAnswer answer = call("PUT", "/tasks/1.1/status",
                          R"({"status":"in_progress","metadata":{"runner_id":"r-1"},)"
                          R"("updated_at":1732200000.123})");
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.json()["state"], Json("running"));
  EXPECT_EQ(answer.json()["status"], Json("running"));
  EXPECT_EQ(answer.json()["attempt"], Json(1));
  answer =
      call("POST", "/tasks/1.1/events",
           R"({"event_type":"TaskStarted","data":{"runner_id":"r-1"},"timestamp":1732200000.5})");
  EXPECT_EQ(answer.status, 201) << answer.body;
  EXPECT_EQ(answer.json()["timestamp"], Json("2024-11-21T14:40:00.500Z"));
  EXPECT_EQ(answer.json()["task_id"], Json("chat-app:1.1"));
  answer = call("POST", "/tasks/1.1/artifacts",
                R"({"type":"diff","uri":"http://localhost:8002/artifacts/9","size_bytes":1024,)"
                R"("metadata":{},"created_at":1732200001})");
  EXPECT_EQ(answer.status, 201) << answer.body;
  answer =
      call("PUT", "/tasks/1.1/status", R"({"status":"in_progress","metadata":{},"updated_at":1})");
  EXPECT_EQ(answer.status, 200);
  answer = call("PUT", "/tasks/1.1/status", R"({"status":"done","metadata":{"branch":"b"}})");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.json()["metadata"], Json::parse(R"({"runner_id":"r-1","branch":"b"})"));
  EXPECT_EQ(call("PUT", "/tasks/1.1/status", R"({"status":"in_progress"})").status, 409);
  answer = call("GET", "/tasks/1.1");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.json()["artifacts"].items().at(0)["uri"],
            Json("http://localhost:8002/artifacts/9"));
  EXPECT_EQ(call("POST", "/tasks/1.1/retry").status, 409);  // an empty body is no defect
  const RawAnswer events = call("GET", "/tasks/1.1/events");
  EXPECT_EQ(events.json()["items"].size(), 4u);  // created, started twice (theirs, ours), completed
}

TEST_F(ServiceTest, BareIdOfTwoTasksIsAConflictNamingBoth) {
  submit("a", R"([{"id":"1.1"}])");
  submit("b", R"([{"id":"1.1"}])");
  const RawAnswer answer = call("GET", "/tasks/1.1");
  EXPECT_EQ(answer.status, 409);
  EXPECT_THAT(answer.body, HasSubstr("a:1.1, b:1.1"));
}

TEST_F(ServiceTest, WrongRequestsAreRefusedWithEveryDefect) {
  submit("app", R"([{"id":"1"}])");
  EXPECT_EQ(call("GET", "/tasks/9").status, 404);
  EXPECT_EQ(call("GET", "/tasks/app:9").status, 404);
  EXPECT_EQ(call("GET", "/tasksets/none").status, 404);
  EXPECT_EQ(call("PUT", "/tasks/1/status", R"({"status":"asleep"})").status, 422);
  EXPECT_EQ(call("PUT", "/tasks/1/status", "{").status, 400);
  EXPECT_EQ(call("PUT", "/tasks/1/status", "[]").status, 422);
  EXPECT_EQ(call("PUT", "/tasks/1/status", "{}").status, 422);
  EXPECT_EQ(call("POST", "/tasks/1/complete", "{}").status, 422);
  EXPECT_EQ(call("POST", "/tasks/claim", R"({"lease_seconds":0.5})").status, 422);
  EXPECT_EQ(call("POST", "/tasks/claim", R"({"max":0})").status, 422);
  EXPECT_EQ(call("GET", "/tasks?limit=0").status, 422);
  EXPECT_EQ(call("GET", "/tasks?limit=1001").status, 422);
  EXPECT_EQ(call("GET", "/tasks?state=asleep").status, 422);
  EXPECT_EQ(call("GET", "/tasks?cursor=!").status, 422);
  EXPECT_EQ(call("GET", "/events?since=yesterday").status, 422);
  EXPECT_EQ(call("GET", "/events?after=-1").status, 422);
  EXPECT_EQ(call("GET", "/tasksets/app/graph?format=gif").status, 422);
  for (const char* path :
       {"/tasks/..%2fx", "/tasks/a%00b", "/tasks/9/explain", "/providers/x/park"}) {
    const int status = call("GET", path).status;
    EXPECT_TRUE(status >= 400 && status < 500) << path << " " << status;
  }
  EXPECT_EQ(call("GET", "/tasks/" + std::string(300, 'x')).status, 422);
  EXPECT_EQ(call("POST", "/tasks/1/explain").status, 405);
  EXPECT_EQ(call("POST", "/tasks/claim", R"({"provider":"open ai"})").status, 422);
  EXPECT_EQ(call("POST", "/providers/open%20ai/park", R"({"until":4102444800})").status, 422);
  EXPECT_EQ(call("POST", "/tasks/1/artifacts", R"({"type":"log","uri":"a\u0001b"})").status, 422);
  const RawAnswer answer = call(
      "POST", "/tasksets",
      R"({"spec_name":"a b","tasks":[{"id":"1","priority":true},{"id":"1","title":7},{"id":"x:2"},{}]})");
  EXPECT_EQ(answer.status, 422);
  std::vector<std::string> pointers;
  for (const Json& error : answer.json()["errors"].items()) {
    pointers.push_back(error["pointer"].string_or(""));
  }
  EXPECT_THAT(pointers, ElementsAre("/spec_name", "/tasks/0/priority", "/tasks/1/title",
                                    "/tasks/1/id", "/tasks/2/id", "/tasks/3/id"));
}

TEST_F(ServiceTest, CursorThatTheQueryDidNotGiveIsRefused) {
  submit("app", R"([{"id":"1"},{"id":"2"}])");
  const auto status = [&](const std::string& sort, const std::string& cursor) {
    return call("GET", "/tasks?sort=" + sort + "&cursor=" + percent_encode(base64_encode(cursor)))
        .status;
  };
  EXPECT_EQ(status("age", R"({"a":1,"b":2})"), 422);  // as many members as elements are wanted
  EXPECT_EQ(status("number", R"({"a":1,"b":2,"c":3,"d":4})"), 422);
  EXPECT_EQ(status("age", R"(["age","x"])"), 422);
  EXPECT_EQ(status("age", R"(["age",1.5])"), 422);
  EXPECT_EQ(status("age", R"(["priority",1])"), 422);
  EXPECT_EQ(status("priority", R"(["priority",true,[]])"), 422);
  EXPECT_EQ(status("number", R"(["number","app",7,1])"), 422);
  EXPECT_EQ(status("age", R"("age")"), 422);
  EXPECT_EQ(status("age", R"(["age",1])"), 200);
}

TEST_F(ServiceTest, SubmissionHasSoManyDependencies) {
  // 11 tasks, each with as many dependencies as one task may have.
  std::string tasks;
  for (int i = 0; i < 11; ++i) {
    std::string names;
    for (std::size_t k = 0; k < limits::kTasksPerSubmit; ++k) names += R"("x",)";
    names.pop_back();
    tasks += R"({"id":")" + std::to_string(i) + R"(","dependencies":[)" + names + "]},";
  }
  tasks.pop_back();
  const RawAnswer answer =
      call("POST", "/tasksets", R"({"spec_name":"app","tasks":[)" + tasks + "]}");
  EXPECT_EQ(answer.status, 422);
  EXPECT_EQ(answer.json()["errors"].items().at(0)["pointer"], Json("/tasks"));
}

TEST_F(ServiceTest, WrongQueriesAreToldByJsonPointers) {
  for (const char* query : {"limit=0", "sort=colour", "cursor=!", "state=asleep"}) {
    const std::string text = query;
    const Json problem = call("GET", "/tasks?" + text).json();
    ASSERT_EQ(problem["errors"].size(), 1u) << query;
    EXPECT_EQ(problem["errors"].items().at(0)["pointer"],
              Json("/" + text.substr(0, text.find('='))));
  }
}

TEST_F(ServiceTest, PageOfTasksHasAnEntityTagOfWhatItSays) {
  submit("app", R"([{"id":"1"}])");
  const std::string etag(call("GET", "/tasks").headers.get_or("ETag", ""));
  ASSERT_GT(etag.size(), 2u);
  const std::string condition = "If-None-Match: \"zz\", " + etag + "\r\n";
  const RawAnswer unchanged = call("GET", "/tasks", "", condition);
  EXPECT_EQ(unchanged.status, 304);
  EXPECT_EQ(unchanged.headers.get_or("ETag", ""), etag);
  EXPECT_EQ(call("PUT", "/tasks/1/status", R"({"status":"running"})").status, 200);
  EXPECT_EQ(call("GET", "/tasks", "", condition).status, 200);
}

TEST_F(ServiceTest, UnknownSpecSelectsNothing) {
  for (const char* path : {"/tasks?spec=none", "/events?spec=none"}) {
    const RawAnswer answer = call("GET", path);
    EXPECT_EQ(answer.status, 200) << path;
    EXPECT_EQ(answer.json()["items"], Json::array()) << path;
  }
}

TEST_F(ServiceTest, HeartbeatOfAMalformedTaskIdIsAnInvalidOne) {
  const std::string body = R"({"lease_token":"x"})";
  EXPECT_EQ(call("POST", "/tasks/a:b:c/heartbeat", body).status, 422);
  EXPECT_EQ(call("POST", "/tasks/a:b/heartbeat", body).status, 404);
  const Json many =
      call("POST", "/heartbeats", R"({"leases":[{"task_id":"a:b:c","lease_token":"x"}]})").json();
  EXPECT_EQ(many["items"].items().at(0)["error"], Json("not a task id"));
}

TEST_F(ServiceTest, TenMebibyteEventIsRefusedAsTooLarge) {
  submit("app", R"([{"id":"1"}])");
  RawClient client(server.port());
  // Only the head: the refusal must not need the body.
  client.send("POST /tasks/1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 10485760\r\n\r\n");
  EXPECT_EQ(client.read_answer().status, 413);
}

TEST_F(ServiceTest, DeepMetadataThatNoAnswerCouldHoldIsRefused) {
  submit("app", R"([{"id":"1"}])");
  const auto nested = [](int depth) {
    return R"({"status":"running","metadata":{"a":)" +
           std::string(static_cast<std::size_t>(depth), '[') +
           std::string(static_cast<std::size_t>(depth), ']') + "}}";
  };
  EXPECT_EQ(call("PUT", "/tasks/1/status", nested(60)).status, 422);
  EXPECT_EQ(call("PUT", "/tasks/1/status", nested(50)).status, 200);
  EXPECT_EQ(client_for(server).list().items.size(), 1u);
}

TEST_F(ServiceTest, EntityTagsGuardReadsAndWrites) {
  submit("app", R"([{"id":"1"}])");
  const RawAnswer first = call("GET", "/tasks/1");
  const std::string etag(first.headers.get("ETag").value_or(""));
  EXPECT_EQ(etag, "\"1\"");
  EXPECT_EQ(call("GET", "/tasks/1", "", "If-None-Match: " + etag + "\r\n").status, 304);
  EXPECT_EQ(call("PUT", "/tasks/1/status", R"({"status":"blocked"})", "If-Match: \"7\"\r\n").status,
            412);
  EXPECT_EQ(call("PUT", "/tasks/1/status", R"({"status":"blocked"})", "If-Match: " + etag + "\r\n")
                .status,
            200);
  EXPECT_EQ(call("GET", "/tasks/1", "", "If-None-Match: " + etag + "\r\n").status, 200);
}

TEST_F(ServiceTest, ListsOfTagsAndWeakTagsAreRead) {
  submit("app", R"([{"id":"1"}])");
  const auto read = [&](const std::string& tags) {
    return call("GET", "/tasks/1", "", "If-None-Match: " + tags + "\r\n").status;
  };
  EXPECT_EQ(read("\"zz\", \"1\""), 304);
  EXPECT_EQ(read("W/\"1\""), 304);
  EXPECT_EQ(read("*"), 304);
  EXPECT_EQ(read("\"zz\", W/\"2\""), 200);
  const auto write = [&](const std::string& tags) {
    return call("PUT", "/tasks/1/status", R"({"status":"ready"})", "If-Match: " + tags + "\r\n")
        .status;
  };
  EXPECT_EQ(write("\"zz\", \"1\""), 200);
  EXPECT_EQ(write("*"), 200);
  EXPECT_EQ(write("\"zz\""), 412);
  EXPECT_EQ(write("W/\"1\""), 412);  // RFC 9110 section 13.1.1: compared strongly
}

TEST_F(ServiceTest, EveryChangeOfStateCanBeGuarded) {
  submit("app", R"([{"id":"1"},{"id":"2"}])");
  const std::string other = "If-Match: \"77\"\r\n";
  const Json claimed = call("POST", "/tasks/claim", "{}").json()["tasks"].items().at(0);
  const auto complete = [&](const std::string& token, const std::string& headers) {
    return call("POST", "/tasks/1/complete",
                R"({"status":"failed","lease_token":")" + token + "\"}", headers)
        .status;
  };
  const std::string token = claimed["lease_token"].string_or("");
  EXPECT_EQ(complete("stale", other), 409);  // a lost lease is told before a lost update
  EXPECT_EQ(complete(token, other), 412);
  EXPECT_EQ(complete(token, "If-Match: \"2\"\r\n"), 200);
  EXPECT_EQ(complete(token, "If-Match: \"2\"\r\n"), 200);  // its answer was lost: told again
  EXPECT_EQ(call("POST", "/tasks/1/retry", "", other).status, 412);
  EXPECT_EQ(call("POST", "/tasks/1/retry", "", "If-Match: \"3\"\r\n").status, 200);
  EXPECT_EQ(call("POST", "/tasks/2/cancel", "", other).status, 412);
  EXPECT_EQ(call("POST", "/tasks/2/cancel", "", "If-Match: \"1\"\r\n").status, 200);
}

TEST_F(ServiceTest, LeaseTokenTravelsAsFieldOrHeader) {
  submit("app", R"([{"id":"1"}])");
  const Json claimed =
      call("POST", "/tasks/claim", R"({"runner_id":"r"})").json()["tasks"].items().at(0);
  const std::string token = claimed["lease_token"].string_or("");
  EXPECT_EQ(call("PUT", "/tasks/1/status", R"({"status":"done"})").status, 409);
  EXPECT_EQ(call("POST", "/tasks/1/heartbeat", "", "X-Lease-Token: " + token + "\r\n").status, 200);
  const Json many = call("POST", "/heartbeats",
                         R"({"leases":[{"task_id":"app:1","lease_token":")" + token +
                             R"("},{"task_id":"app:1","lease_token":"x"}]})")
                        .json();
  EXPECT_EQ(many["items"].items().at(0)["cancel_requested"], Json(false));
  EXPECT_EQ(many["items"].items().at(1)["error"], Json("the lease is lost"));
  EXPECT_EQ(
      call("PUT", "/tasks/1/status", R"({"status":"done"})", "X-Lease-Token: " + token + "\r\n")
          .status,
      200);
}

TEST_F(ServiceTest, CompleteClaimsTheNextTaskInTheSameAnswer) {
  submit("app", R"([{"id":"1"},{"id":"2","dependencies":["1"]}])");
  const Json first = call("POST", "/tasks/claim", "{}").json()["tasks"].items().at(0);
  const auto completion = [](const Json& task, const std::string& next) {
    return R"({"status":"done","lease_token":")" + task["lease_token"].string_or("") +
           R"(","claim_next":)" + next + "}";
  };
  const Json answer = call("POST", "/tasks/1/complete", completion(first, "true")).json();
  EXPECT_EQ(answer["task"]["state"], Json("done"));
  EXPECT_EQ(answer["next"]["id"], Json("app:2"));
  const Json last = call("POST", "/tasks/2/complete",
                         completion(answer["next"], R"({"runner_id":"r","skills":["x"]})"))
                        .json();
  EXPECT_EQ(last["task"]["state"], Json("done"));
  EXPECT_TRUE(last.find("next") != nullptr && last["next"].is_null());
}

TEST_F(ServiceTest, ClaimWithoutWorkAnswers204) {
  EXPECT_EQ(call("POST", "/tasks/claim", "{}").status, 204);
  EXPECT_EQ(call("POST", "/tasks/claim", R"({"wait_seconds":0.05})").status, 204);
}

TEST_F(ServiceTest, WaitingClaimIsWokenWhenATaskBecomesReady) {
  RawClient waiting(server.port());
  waiting.send(request("POST", "/tasks/claim", R"({"runner_id":"r","wait_seconds":30})"));
  submit("app", R"([{"id":"1"},{"id":"2","dependencies":["1"]}])");
  const RawAnswer answer = waiting.read_answer();
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Json first = answer.json()["tasks"].items().at(0);
  EXPECT_EQ(first["id"], Json("app:1"));
  // A dependency that becomes done wakes, too.
  waiting.send(request("POST", "/tasks/claim", R"({"runner_id":"r","wait_seconds":30})"));
  EXPECT_EQ(call("POST", "/tasks/1/complete",
                 R"({"status":"done","lease_token":")" + first["lease_token"].string_or("") + "\"}")
                .status,
            200);
  EXPECT_EQ(waiting.read_answer().json()["tasks"].items().at(0)["id"], Json("app:2"));
}

TEST_F(ServiceTest, WaitingClaimIsWokenByAnotherRunnersExpiredLease) {
  submit("app", R"([{"id":"1"}])");
  EXPECT_EQ(call("POST", "/tasks/claim", R"({"lease_seconds":5})").status, 200);
  RawClient waiting(server.port());
  waiting.send(request("POST", "/tasks/claim", R"({"runner_id":"second","wait_seconds":30})"));
  clock.advance(seconds(5));
  const RawAnswer answer = waiting.read_answer();
  ASSERT_EQ(answer.status, 200);
  EXPECT_EQ(answer.json()["tasks"].items().at(0)["attempt"], Json(2));
  EXPECT_EQ(answer.json()["tasks"].items().at(0)["runner_id"], Json("second"));
}

// The client may leave before its claim is read, while it waits (then the claim is handed back, see
// ClaimQueueTest), or while its answer is on the wire: then its lease ends unrenewed.
TEST_F(ServiceTest, ClaimsOfClientsThatLeftAreNotLost) {
  for (int round = 0; round < 10; ++round) {
    const std::string spec = "s" + std::to_string(round);
    {
      RawClient gone(server.port());
      gone.send(request("POST", "/tasks/claim", R"({"runner_id":"gone","wait_seconds":30})"));
    }
    RawClient waiting(server.port());
    waiting.send(request("POST", "/tasks/claim", R"({"runner_id":"here","wait_seconds":30})"));
    submit(spec, R"([{"id":"1","max_attempts":100}])");
    while (!waiting.readable(std::chrono::milliseconds(200))) clock.advance(seconds(60));
    const RawAnswer answer = waiting.read_answer();
    ASSERT_EQ(answer.status, 200);
    const Json claimed = answer.json()["tasks"].items().at(0);
    EXPECT_EQ(claimed["id"], Json(spec + ":1"));
    // Out of the next round's way, whoever holds it by now.
    call("POST", "/tasks/" + spec + ":1/complete",
         R"({"status":"done","lease_token":")" + claimed["lease_token"].string_or("") + "\"}");
    call("POST", "/tasks/" + spec + ":1/cancel");
  }
}

TEST_F(ServiceTest, EachOfManyWaitingClaimsGetsOneTask) {
  constexpr int kWaiting = 40;
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < kWaiting; ++i) {
    clients.push_back(std::make_unique<RawClient>(server.port()));
    clients.back()->send(request("POST", "/tasks/claim", R"({"runner_id":"r","wait_seconds":30})"));
  }
  Json tasks = Json::array();
  for (int i = 0; i < kWaiting; ++i) tasks.push_back(Json::object({{"id", std::to_string(i)}}));
  submit("app", tasks.dump());
  std::set<std::string> claimed;
  for (const auto& client : clients) {
    const RawAnswer answer = client->read_answer();
    ASSERT_EQ(answer.status, 200);
    claimed.insert(answer.json()["tasks"].items().at(0)["id"].string_or(""));
  }
  EXPECT_EQ(claimed.size(), static_cast<std::size_t>(kWaiting));
}

TEST_F(ServiceTest, LeaseExpiresByItselfAndItsHolderIsTold) {
  submit("app", R"([{"id":"1"}])");
  const Json claimed =
      call("POST", "/tasks/claim", R"({"lease_seconds":1})").json()["tasks"].items().at(0);
  clock.advance(seconds(2));
  const std::string token = claimed["lease_token"].string_or("");
  EXPECT_EQ(call("POST", "/tasks/1/heartbeat", R"({"lease_token":")" + token + "\"}").status, 409);
  // The service's own thread ends it: the claim below waits for that, not for a second call.
  EXPECT_EQ(call("POST", "/tasks/claim", R"({"wait_seconds":30})").status, 200);
  EXPECT_EQ(call("POST", "/tasks/1/complete", R"({"status":"done","lease_token":")" + token + "\"}")
                .status,
            409);
}

TEST_F(ServiceTest, HealthNamesAWorkingStore) {
  std::string detail;
  EXPECT_TRUE(service->healthy(detail));
  EXPECT_EQ(detail, "ok");
}

TEST_F(ServiceTest, StopsWithWaitingClaims) {
  RawClient waiting(server.port());
  waiting.send(request("POST", "/tasks/claim", R"({"wait_seconds":30})"));
  EXPECT_EQ(call("GET", "/tasks").status, 200);
  service->stop();
  service->stop();
  server.stop();
  const int status = waiting.read_answer().status;
  EXPECT_TRUE(status == 503 || status == 0) << status;
}

}  // namespace
}  // namespace necrocode::registry
