// The end-to-end matrix of the Agent Runner: each behaviour of a model, its service and the tests
// (matrix_behaviours.hpp) on a repository of each language (matrix_repositories.hpp). One function
// holds every cell against everything that is promised of a run's end.
#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "e2e/matrix_behaviours.hpp"
#include "necrocode/base/digest.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kKey = "sekret-model-key-0123456789";
constexpr const char* kGitToken = "sekret-git-token-0123456789";
constexpr const char* kCanary = "not-for-tests-0123456789";
constexpr std::size_t kFileBytesMax = 128 * limits::kMiB;

/// Every file, folder and link below a folder, with its content.
using Tree = std::map<std::string, std::string>;

Tree tree_of(const fs::path& folder, const std::string& without = "-") {
  Tree tree;
  for (fs::recursive_directory_iterator it(folder), end; it != end; ++it) {
    const fs::path name = it->path().lexically_relative(folder);
    if (name == without) {
      it.disable_recursion_pending();
    } else if (it->is_symlink()) {
      tree[name.string()] = "-> " + fs::read_symlink(it->path()).string();
    } else if (it->is_regular_file()) {
      tree[name.string()] = read_file(it->path(), kFileBytesMax);
    } else {
      tree[name.string()] = "folder";
    }
  }
  return tree;
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

/// The names of what is not the same in both.
std::vector<std::string> differences(const Tree& before, const Tree& after) {
  std::vector<std::string> names;
  for (const auto& [name, content] : before) {
    const auto now = after.find(name);
    if (now == after.end() || now->second != content) names.push_back(name);
  }
  for (const auto& [name, content] : after) {
    if (!before.contains(name)) names.push_back(name);
  }
  return names;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (const std::string_view line : split(text, '\n')) {
    if (!line.empty()) lines.emplace_back(line);
  }
  return lines;
}

/// How many processes of this machine work in `folder` or name it.
int processes_of(const fs::path& folder) {
  int count = processes_with(folder.string());
  for (const auto& entry : fs::directory_iterator("/proc")) {
    if (!parse_uint(entry.path().filename().string())) continue;
    std::error_code gone;
    const fs::path at = fs::read_symlink(entry.path() / "cwd", gone);
    if (!gone && at.string().starts_with(folder.string())) ++count;
  }
  return count;
}

class RunnerMatrix : public EndToEnd,
                     public testing::WithParamInterface<std::tuple<Repository, Behaviour>> {
 protected:
  static const Repository& repository() { return std::get<0>(GetParam()); }
  static const Behaviour& behaviour() { return std::get<1>(GetParam()); }
  static bool with_services() { return repository().way == Way::kServices; }
  static bool in_clone() { return repository().way == Way::kLentClone; }
  static bool reaches(Reach reach) { return behaviour().end.reach >= reach; }

  // --- before the run

  void SetUp() override {
    for (const char* folder : {"home/.ssh", "outside", "temporary"}) {
      fs::create_directories(path(folder));
    }
    write_file_atomic(path("home/.ssh/id"), kCanary);
    write_file_atomic(path("outside/canary"), kCanary);
    make_remote(repository().files);
    if (behaviour().link_outside) push_link();
    base_ = git({"-C", remote(), "rev-parse", "main"});
    write_file_atomic(path("config.yaml"), "llm_retry_count: 1\n" + behaviour().settings);
    write_file_atomic(path("task.json"), make_task().dump());
    if (with_services()) start_services();
    extra_env_ = {std::string("LLM_API_KEY=") + kKey, std::string("GIT_TOKEN=") + kGitToken,
                  "TMPDIR=" + path("temporary").string()};
    scene_.soon = real_clock().system_now() + std::chrono::seconds{3};
    serve_model(behaviour().answers(scene_));
    for (const char* folder : {"home", "outside", "clone"}) {
      before_[folder] = tree_of(path(folder), own_part(folder));
    }
  }

  void push_link() {
    fs::create_symlink(path("outside"), path("clone/link"));
    const std::string clone = path("clone").string();
    git({"-C", clone, "add", "-A"});
    git({"-C", clone, "commit", "--quiet", "-m", "a link"});
    git({"-C", clone, "push", "--quiet", "origin", "HEAD:main"});
  }

  Json make_task() const {
    Json task = Json::object({{"task_id", "e2e:1"},
                              {"title", "Clamp to both bounds"},
                              {"base_branch", "main"},
                              {"related_files", std::vector<std::string>{repository().source}},
                              {"readonly_files", std::vector<std::string>{repository().tests}},
                              {"timeout_seconds", 60}});
    task.set(in_clone() ? "slot_path" : "repo_url", in_clone() ? path("clone").string() : remote());
    if (!repository().detected || behaviour().first_command) {
      task.set("test_commands", test_commands());
    }
    for (const auto& [name, value] : behaviour().fields) task.set(name, value);
    return task;
  }
  std::vector<std::string> test_commands() const {
    std::vector<std::string> commands = repository().test_commands;
    if (behaviour().first_command) {
      commands.insert(commands.begin(), behaviour().first_command(scene_));
    }
    return commands;
  }

  void start_services() {
    url_ = serve();
    Json task = make_task();
    task.erase("task_id");
    task.set("id", "1");
    client<TaskRegistryClient>().submit(
        Json::object({{"spec_name", "e2e"}, {"tasks", Json::Array{task}}}));
  }
  template <class Client>
  Client client() const {
    net::ServiceOptions options;
    options.base_url = url_;
    return Client(std::move(options));
  }

  // What of a folder a run may change. In the user's clone: objects, which nothing need refer to,
  // once a change is tested; and what belongs to standing on its branch when all went well.
  static std::string own_part(const std::string& folder) {
    if (!in_clone() || folder != "clone" || !reaches(Reach::kTests)) return "-";
    return reaches(Reach::kPush) ? ".git" : ".git/objects";
  }

  // --- the run

  Seen run_task() {
    std::vector<std::string> arguments = {"run",
                                          path("task.json").string(),
                                          "--json",
                                          "--config",
                                          path("config.yaml").string(),
                                          "--data",
                                          path("data").string(),
                                          "--out",
                                          path("out").string(),
                                          "--llm-endpoint",
                                          endpoint()};
    if (with_services()) arguments.insert(arguments.end(), {"--url", url_});
    if (!behaviour().baseline) arguments.emplace_back("--no-baseline");
    std::string output;
    EXPECT_EQ(run(arguments, &output), behaviour().end.exit_code) << output << stderr_text();
    Seen seen{{}, {}, scene_};
    for (const std::string& line : lines_of(output)) {
      seen.events.push_back(Json::try_parse(line).value_or(Json()));
      EXPECT_TRUE(seen.events.back().is_object()) << line;
    }
    EXPECT_FALSE(seen.events.empty());
    if (!seen.events.empty()) {
      seen.result = std::move(seen.events.back());
      seen.events.pop_back();
    }
    return seen;
  }

  // --- after it

  void expect_result(const Seen& seen) {
    const Json& result = seen.result;
    const Behaviour& cell = behaviour();
    EXPECT_EQ(Json::parse(read_file(path("out/result.json"), limits::kMiB)), result);
    EXPECT_EQ(result["type"], Json("result"));
    EXPECT_EQ(result["exit_code"], Json(cell.end.exit_code));
    EXPECT_EQ(result["success"], Json(reaches(Reach::kPush)));
    EXPECT_EQ(result["outcome"], Json(reaches(Reach::kPush) ? "done" : "failed"));
    EXPECT_EQ(result["sandbox"], Json("bubblewrap"));
    EXPECT_EQ(result["error"]["class"].string_or(""), cell.end.failure_class);
    EXPECT_THAT(result["error"]["reason"].string_or(""), HasSubstr(cell.reason));
    EXPECT_EQ(result["error"].is_null(), reaches(Reach::kPush));
    EXPECT_EQ(result["implementation"]["repairs"], Json(cell.repairs));
    EXPECT_EQ(result["implementation"]["reasks"], Json(cell.reasks));
    const int asked = 1 + cell.repairs + cell.reasks;
    EXPECT_EQ(result["implementation"]["model_calls"], Json(asked));
    EXPECT_EQ(model_calls(), static_cast<std::size_t>(asked + cell.retries));
    EXPECT_EQ(result["tests"].is_null(), !reaches(Reach::kTests));
    if (reaches(Reach::kTests)) {
      EXPECT_EQ(result["tests"]["passed"], Json(reaches(Reach::kPush)));
    }
    if (reaches(Reach::kPush)) expect_all_tests_ran(result);
  }

  void expect_all_tests_ran(const Json& result) {
    std::vector<std::string> ran;
    for (const Json& command : result["tests"]["commands"].items()) {
      ran.push_back(command["command"].string_or(""));
    }
    EXPECT_EQ(ran, test_commands());
    std::vector<std::string> red;
    if (behaviour().baseline) red.push_back(repository().test_commands.back());
    EXPECT_EQ(result["red_at_base"], Json(red));
  }

  void expect_remote(const Json& result) {
    EXPECT_EQ(git({"-C", remote(), "rev-parse", "main"}), base_);
    const std::string branch = "feature/task-e2e-1-clamp-to-both-bounds";
    const std::string refs = git({"-C", remote(), "for-each-ref", "--format=%(refname)"});
    if (!reaches(Reach::kPush)) {
      EXPECT_EQ(refs, "refs/heads/main");
      EXPECT_TRUE(result["push"].is_null());
      return;
    }
    EXPECT_EQ(refs, "refs/heads/" + branch + "\nrefs/heads/main");
    EXPECT_EQ(result["push"]["branch"], Json(branch));
    EXPECT_EQ(result["push"]["commit"], Json(git({"-C", remote(), "rev-parse", branch})));
    EXPECT_EQ(git({"-C", remote(), "rev-parse", branch + "^"}), base_);
    EXPECT_EQ(git({"-C", remote(), "diff", "--name-only", "main", branch}), repository().source);
    EXPECT_EQ(git({"-C", remote(), "show", branch + ":" + repository().source}) + "\n",
              repository().right);
    EXPECT_THAT(git({"-C", remote(), "log", "-1", "--format=%B", branch}),
                HasSubstr("Necrocode-Task: e2e:1"));
  }

  void expect_artifacts(const Json& result) {
    std::map<std::string, std::string> kept;  // type to content
    for (const Json& artifact : result["artifacts"].items()) {
      const std::string uri = artifact["uri"].string_or("");
      EXPECT_EQ(artifact["stored"], Json(with_services()));
      const std::string content = with_services() ? client<ArtifactStoreClient>().download(uri)
                                                  : read_file(uri, kFileBytesMax);
      EXPECT_EQ(artifact["size_bytes"], Json(content.size()));
      EXPECT_EQ(artifact["sha256"], Json(sha256_hex(content)));
      EXPECT_TRUE(kept.emplace(artifact["type"].string_or(""), content).second);
    }
    std::set<std::string> types;
    for (const auto& [type, content] : kept) types.insert(type);
    std::set<std::string> expected = {"log", "transcript"};
    if (reaches(Reach::kTests)) expected.insert({"diff", "test", "junit"});
    EXPECT_EQ(types, expected);
    EXPECT_THAT(kept["log"], HasSubstr("ended: " + result["outcome"].string_or("")));
    int prompts = 0;
    for (const std::string& line : lines_of(kept["transcript"])) {
      const auto turn = Json::try_parse(line);
      EXPECT_TRUE(turn.has_value()) << line;
      if (turn && !(*turn)["prompt"].is_null()) ++prompts;
    }
    EXPECT_EQ(result["implementation"]["model_calls"], Json(prompts));
    if (reaches(Reach::kTests)) {
      EXPECT_THAT(kept["diff"], HasSubstr("diff --git a/" + repository().source));
      EXPECT_THAT(kept["junit"], HasSubstr("<testsuites"));
      EXPECT_EQ(Json::parse(kept["test"])["passed"], result["tests"]["passed"]);
    }
  }

  static std::vector<std::string> expected_phases() {
    std::vector<std::string> phases = {"validate"};
    if (with_services()) phases.emplace_back("allocate");
    phases.emplace_back("prepare");
    if (behaviour().baseline) phases.emplace_back("baseline");
    phases.emplace_back("implement");
    for (int round = 0; reaches(Reach::kTests) && round <= behaviour().repairs; ++round) {
      if (round > 0) phases.emplace_back("repair");
      phases.emplace_back("test");
    }
    if (reaches(Reach::kPush)) phases.insert(phases.end(), {"commit", "push"});
    return phases;
  }

  void expect_events(const Seen& seen) {
    std::vector<std::string> phases;
    std::map<std::string, int> count;
    std::string time;
    for (const Json& event : seen.events) {
      const std::string type = event["type"].string_or("");
      ++count[type];
      if (type == "phase") phases.push_back(event["phase"].string_or(""));
      EXPECT_EQ(event["schema"], Json(1)) << event.dump();
      EXPECT_EQ(event["task_id"], Json("e2e:1")) << event.dump();
      EXPECT_TRUE(parse_rfc3339(event["time"].string_or("")).has_value()) << event.dump();
      EXPECT_LE(time, event["time"].string_or("")) << event.dump();
      time = event["time"].string_or("");
    }
    std::vector<std::string> expected = expected_phases();
    const std::string last = expected.back();
    expected.insert(expected.end(), {"upload", "report", "release"});
    EXPECT_EQ(phases, expected);
    EXPECT_EQ(seen.result["phase"], Json(reaches(Reach::kPush) ? "release" : last));
    EXPECT_EQ(seen.result["error"]["phase"].string_or(last), last);
    EXPECT_EQ(Json(count["model_call"]), seen.result["implementation"]["model_calls"]);
    if (reaches(Reach::kTests)) {
      EXPECT_EQ(count["edit"], 1 + behaviour().repairs);
    }
    EXPECT_EQ(count["commit"], reaches(Reach::kPush) ? 1 : 0);
    EXPECT_EQ(static_cast<std::size_t>(count["artifact"]), seen.result["artifacts"].size());
    EXPECT_EQ(count["push"], reaches(Reach::kPush) ? 1 : 0);
    EXPECT_EQ(count["result"], 0);  // but for the last line
  }

  void expect_registry(const Json& result) {
    auto registry = client<TaskRegistryClient>();
    const registry::Task task = registry.get_task("e2e:1");
    EXPECT_EQ(registry::to_string(task.state), behaviour().end.state);
    EXPECT_EQ(task.attempt, 1);
    EXPECT_EQ(task.failure["class"].string_or(""), behaviour().end.failure_class);
    EXPECT_EQ(task.metadata["commit"], result["push"]["commit"]);
    std::set<std::string> told;
    for (const auto& artifact : task.artifacts) told.insert(artifact.uri);
    std::set<std::string> uris;
    for (const Json& artifact : result["artifacts"].items()) {
      uris.insert(artifact["uri"].string_or(""));
    }
    EXPECT_EQ(told, uris);
    std::vector<std::string> phases = {"validate"};
    std::map<std::string, int> count;
    for (const auto& event : registry.events({.task_id = "e2e:1"}).items) {
      ++count[event.event_type];
      if (event.event_type == "TaskProgress") {
        phases.push_back(event.data["phase"].string_or(""));
      }
    }
    EXPECT_EQ(phases, expected_phases());
    for (const char* once : {"TaskAssigned", "RunnerStarted", "SlotAllocated", "SlotReleased"}) {
      EXPECT_EQ(count[once], 1) << once;
    }
    EXPECT_EQ(count["TaskCompleted"], reaches(Reach::kPush) ? 1 : 0);
    auto pool = client<RepoPoolClient>();
    for (const Json& one : pool.list_pools()["items"].items()) {
      const Json whole = pool.get_pool(one["name"].string_or(""));
      for (const Json& slot : whole["slots"].items()) EXPECT_NE(slot["state"], Json("leased"));
    }
  }

  void expect_clone() {
    const std::string clone = path("clone").string();
    EXPECT_EQ(git({"--no-optional-locks", "-C", clone, "status", "--porcelain", "--ignored"}), "");
    const bool changed = in_clone() && reaches(Reach::kPush);
    EXPECT_EQ(git({"-C", clone, "rev-parse", "HEAD"}) == base_, !changed);
    if (!changed) return;
    EXPECT_EQ(git({"-C", clone, "rev-parse", "--abbrev-ref", "HEAD"}),
              "feature/task-e2e-1-clamp-to-both-bounds");
    before_["clone"][repository().source] = repository().right;
  }

  void expect_nothing_outside() {
    for (const auto& [folder, tree] : before_) {
      EXPECT_THAT(differences(tree, tree_of(path(folder), own_part(folder))), IsEmpty()) << folder;
    }
    EXPECT_TRUE(fs::is_empty(path("temporary")));
    std::set<std::string> around = {"clone",  "config.yaml", "data",     "git-stderr",
                                    "home",   "out",         "outside",  "remote.git",
                                    "stderr", "task.json",   "temporary"};
    if (with_services()) around.insert("services");
    EXPECT_EQ(names_in(folder_.path()), around);
    std::set<std::string> out = {"result.json", "run.log", "transcript.jsonl"};
    if (reaches(Reach::kTests)) out.insert({"diff.patch", "junit.xml", "tests.json"});
    EXPECT_EQ(names_in(path("out")), out);
  }

  void expect_no_secret() {
    for (const auto& [name, content] : tree_of(folder_.path())) {
      if (name == "outside/canary" || name == "home/.ssh/id") continue;
      EXPECT_EQ(fs::path(name).filename().string().find("escaped"), std::string::npos) << name;
      for (const char* secret : {kKey, kGitToken, kCanary}) {
        EXPECT_EQ(content.find(secret), std::string::npos) << secret << " in " << name;
      }
    }
  }

  void expect_no_process() {
    EXPECT_EQ(processes_with(scene_.mark), 0);
    if (services_) {
      services_->signal(SIGTERM);
      EXPECT_EQ(services_->wait(), 0);
    }
    EXPECT_EQ(processes_of(folder_.path()), 0);
  }

  Scene scene_{repository(), kKey, path("outside"), "27182." + std::to_string(::getpid()) + "e0",
               real_clock().system_now()};
  std::string url_;   ///< of the services
  std::string base_;  ///< the commit of main
  std::map<std::string, Tree> before_;
};

TEST_P(RunnerMatrix, RunEndsAsItMust) {
  const Seen seen = run_task();
  expect_result(seen);
  expect_remote(seen.result);
  expect_artifacts(seen.result);
  expect_events(seen);
  if (with_services()) expect_registry(seen.result);
  expect_no_process();
  expect_clone();
  expect_nothing_outside();
  expect_no_secret();
  if (behaviour().also) behaviour().also(seen);
  if (HasFailure()) std::cerr << seen.result.pretty() << "\n" << stderr_text();
}

std::string cell_name(const testing::TestParamInfo<std::tuple<Repository, Behaviour>>& cell) {
  return std::get<0>(cell.param).name + "_" + std::get<1>(cell.param).name;
}

INSTANTIATE_TEST_SUITE_P(All, RunnerMatrix,
                         testing::Combine(testing::ValuesIn(repositories()),
                                          testing::ValuesIn(behaviours())),
                         cell_name);

}  // namespace
}  // namespace necrocode::test
