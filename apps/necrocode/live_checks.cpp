#include "live_checks.hpp"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <optional>

#include "necrocode/base/ids.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::app {
namespace {

using namespace std::chrono_literals;

constexpr auto kCallTime = 30s;

class NotTried : public std::exception {};

/// Calls one operation after the other and remembers how each went.
class Checks {
 public:
  explicit Checks(std::vector<LiveCheck>& list) : list_(list) {}

  void begin_service(std::string name) { service_ = std::move(name); }
  void run(const std::string& operation, const std::function<void(const CallContext&)>& call) {
    LiveCheck check{service_, operation, false, "ok"};
    const SteadyTime begin = real_clock().steady_now();
    try {
      call(CallContext{}.within(kCallTime));
      check.ok = true;
    } catch (const NotTried&) {
      check.detail = "not tried: what it needs has failed";
    } catch (const std::exception& error) {
      check.detail = error.what();
    }
    check.duration = real_clock().steady_now() - begin;
    list_.push_back(std::move(check));
  }
  /// What an earlier operation gave.
  template <class T>
  static const T& need(const std::optional<T>& value) {
    if (!value) throw NotTried();
    return *value;
  }
  static void expect(bool holds, const char* what) {
    if (!holds) throw InvalidResponse(what);
  }

 private:
  std::vector<LiveCheck>& list_;
  std::string service_;
};

void require_health(const net::HealthStatus& health) {
  if (!health.healthy) throw Unavailable(health.detail);
}

/// Of a provider that no task needs, so that nothing waits for it.
void check_parking(Checks& checks, TaskRegistryClient& registry, const std::string& provider) {
  std::optional<registry::ParkedProvider> parked;
  using Context = const CallContext&;
  checks.run("park", [&](Context context) {
    parked = registry.park(provider, real_clock().system_now() + kCallTime, "verified", context);
  });
  checks.run("parked_providers", [&](Context context) {
    checks.need(parked);
    const auto all = registry.parked_providers(context);
    checks.expect(
        std::any_of(all.begin(), all.end(), [&](const auto& one) { return one.name == provider; }),
        "the parked provider is not told");
  });
  checks.run("unpark", [&](Context context) {
    checks.need(parked);
    registry.unpark(provider, context);
  });
}

void check_registry(Checks& checks, TaskRegistryClient registry) {
  checks.begin_service("task-registry");
  const std::string spec = "necrocode-verify-" + random_hex(4);
  const std::string first = spec + ":1";
  const std::string second = spec + ":2";
  std::optional<registry::Taskset> taskset;
  std::optional<registry::ClaimedTask> claim;
  using Context = const CallContext&;
  checks.run("health_check", [&](Context) { require_health(registry.health_check()); });
  checks.run("submit", [&](Context context) {
    const auto task = [](const char* number, const Json& dependencies) {
      return Json::object({{"id", number},
                           {"title", "Made by necrocode verify"},
                           {"required_skill", "necrocode-verify"},
                           {"dependencies", dependencies}});
    };
    taskset = registry.submit(
        Json::object(
            {{"spec_name", spec},
             {"tasks", Json::Array{task("1", Json::array()), task("2", Json::Array{Json("1")})}}}),
        context);
  });
  checks.run("get_taskset", [&](Context context) {
    checks.need(taskset);
    checks.expect(registry.get_taskset(spec, context).tasks.size() == 2, "it has other tasks");
  });
  checks.run("list_tasksets", [&](Context context) { registry.list_tasksets(context); });
  checks.run("list", [&](Context context) {
    checks.need(taskset);
    registry::TaskQuery query;
    query.spec = spec;
    checks.expect(registry.list(query, context).items.size() == 2, "it lists other tasks");
  });
  checks.run("graph", [&](Context context) {
    checks.need(taskset);
    registry.graph(spec, "json", context);
  });
  checks.run("explain", [&](Context context) {
    checks.need(taskset);
    const registry::Explanation told = registry.explain(second, context);
    checks.expect(told.reasons.size() == 1 && told.reasons.front().task_id == first,
                  "the dependency is not told");
  });
  checks.run("patch", [&](Context context) {
    checks.need(taskset);
    const registry::Task patched = registry.patch(second, Json::object({{"priority", 1}}), context);
    checks.expect(patched.fields["priority"] == Json(1), "the priority is not changed");
  });
  checks.run("claim", [&](Context context) {
    checks.need(taskset);
    registry::ClaimRequest request;
    request.runner_id.value = "necrocode-verify";
    request.task_id = first;
    const auto claimed = registry.claim(request, context);
    checks.expect(claimed.size() == 1, "the ready task was not given");
    claim = claimed.front();
  });
  checks.run("heartbeat", [&](Context context) {
    registry.heartbeat(first, checks.need(claim).lease_token, context);
  });
  checks.run("heartbeats", [&](Context context) {
    const auto answers = registry.heartbeats({{first, checks.need(claim).lease_token}}, context);
    checks.expect(answers.front().has_value(), "the lease is not renewed");
  });
  checks.run("update_task_status", [&](Context context) {
    registry.update_task_status(first, "in_progress", Json::object({{"verified", true}}),
                                checks.need(claim).lease_token, context);
  });
  checks.run("add_event", [&](Context context) {
    registry.add_event(first, "Verified", Json::object(), checks.need(claim).lease_token, context);
  });
  checks.run("add_artifact", [&](Context context) {
    registry.add_artifact(first, "log", "verify:none", 0, Json::object(),
                          checks.need(claim).lease_token, context);
  });
  checks.run("events", [&](Context context) {
    checks.need(taskset);
    checks.expect(!registry.events({.task_id = first}, 100, context).items.empty(),
                  "there is no event");
  });
  checks.run("watch", [&](Context context) {
    checks.need(taskset);
    const auto enough = [](const registry::Event&) { return false; };
    checks.expect(registry.watch({.task_id = first}, enough, context), "no event came");
  });
  checks.run("complete", [&](Context context) {
    registry::Completion completion;
    completion.lease_token = checks.need(claim).lease_token;
    registry.complete(first, completion, context);
  });
  checks.run("get_task", [&](Context context) {
    checks.need(claim);
    checks.expect(registry.get_task(second, context).state == registry::TaskState::kReady,
                  "the dependent task is not ready");
  });
  checks.run("attempts", [&](Context context) {
    checks.need(claim);
    checks.expect(registry.attempts(first, context).size() == 1, "it has other attempts");
  });
  checks.run("cancel", [&](Context context) {
    checks.need(taskset);
    registry.cancel(second, "verified", context);
  });
  checks.run("retry", [&](Context context) {
    checks.need(taskset);
    registry.retry(second, context);
    registry.cancel(second, "verified", context);
  });
  check_parking(checks, registry, spec);
}

/// A repository to make slots of: on this host, since the pool lends folders of it.
std::string make_repository(const git::Git& git, const std::filesystem::path& folder) {
  const std::filesystem::path remote = folder / "remote.git";
  const std::filesystem::path seed = folder / "seed";
  std::filesystem::create_directories(seed);
  write_file_atomic(seed / "README", "Made by necrocode verify\n");
  git.run({"init", "--quiet", "--bare", "--initial-branch=main", remote.string()}, {});
  const git::Repository repository(git, folder / "seed.git", seed);
  repository.init({}, {});
  repository.stage({"README"}, {});
  const std::string commit = repository.commit("Made by necrocode verify\n", {});
  if (repository.push(remote.string(), commit, "main", "", {}) != git::PushOutcome::kPushed) {
    throw PushError("the first commit was not pushed");
  }
  return "file://" + remote.string();
}

void check_pool(Checks& checks, RepoPoolClient pool, const git::Git& git) {
  checks.begin_service("repo-pool");
  const TemporaryDirectory folder("necrocode-verify-");
  const std::string name = "necrocode-verify-" + random_hex(4);
  std::optional<Json> made;
  std::optional<SlotAllocation> slot;
  std::string url;
  using Context = const CallContext&;
  checks.run("health_check", [&](Context) { require_health(pool.health_check()); });
  checks.run("add_pool", [&](Context context) {
    url = make_repository(git, folder.path());
    made = pool.add_pool({name, url, 1, 1, "main"}, context);
  });
  checks.run("list_pools", [&](Context context) { pool.list_pools(context); });
  checks.run("get_pool", [&](Context context) {
    checks.need(made);
    pool.get_pool(name, context);
  });
  checks.run("warm", [&](Context context) {
    checks.need(made);
    pool.warm(name, context);
  });
  checks.run("allocate_slot", [&](Context context) {
    checks.need(made);
    slot = pool.allocate_slot(url, "necrocode-verify", 20, {}, context);
  });
  checks.run("get_slot_status",
             [&](Context context) { pool.get_slot_status(checks.need(slot).slot_id, context); });
  checks.run("heartbeat", [&](Context context) {
    pool.heartbeat(checks.need(slot).slot_id, slot->lease_token, context);
  });
  checks.run("release_slot", [&](Context context) {
    pool.release_slot(checks.need(slot).slot_id, slot->lease_token, context);
  });
  checks.run("remove_pool", [&](Context context) {
    checks.need(made);
    pool.remove_pool(name, context);
  });
}

void check_artifacts(Checks& checks, ArtifactStoreClient store) {
  checks.begin_service("artifact-store");
  const std::string content = "Made by necrocode verify: " + random_hex(8);
  const TemporaryDirectory folder("necrocode-verify-");
  std::optional<ArtifactInfo> info;
  using Context = const CallContext&;
  checks.run("health_check", [&](Context) { require_health(store.health_check()); });
  checks.run("upload", [&](Context context) {
    info = store.put("verify", content, Json::object({{"mime_type", "text/plain"}}), context);
  });
  checks.run("get_metadata", [&](Context context) {
    checks.expect(store.get_metadata(checks.need(info).uri, context).sha256 == info->sha256,
                  "it has another digest");
  });
  checks.run("download", [&](Context context) {
    checks.expect(store.download(checks.need(info).uri, context) == content,
                  "other bytes come back");
  });
  checks.run("download_part", [&](Context context) {
    checks.expect(store.download_part(checks.need(info).uri, 5, 2, context) == content.substr(5, 2),
                  "other bytes come back");
  });
  checks.run("download_to", [&](Context context) {
    store.download_to(checks.need(info).uri, folder.path() / "artifact", context);
  });
  checks.run("upload_file", [&](Context context) {
    checks.need(info);
    const std::string uri =
        store.upload_file("verify", folder.path() / "artifact", Json::object(), context);
    store.remove(store.get_metadata(uri, context).id, context);
  });
  checks.run("list", [&](Context context) {
    ArtifactQuery query;
    query.type = "verify";
    store.list(query, context);
  });
  checks.run("remove", [&](Context context) { store.remove(checks.need(info).id, context); });
  std::optional<ArtifactInfo> log;
  checks.run("open_log", [&](Context context) {
    log = store.open_log("verify", Json::object(), std::chrono::seconds{60}, context);
  });
  checks.run("append_log", [&](Context context) {
    store.append_log(checks.need(log).uri, 0, content.substr(0, 5), context);
  });
  checks.run("seal_log", [&](Context context) {
    const std::string rest = content.substr(5);
    checks.expect(store.seal_log(checks.need(log).uri, 5, rest, context).sha256 == info->sha256,
                  "it has another digest");
  });
  checks.run("follow", [&](Context context) {
    std::string came;
    store.follow(
        checks.need(log).uri,
        [&](std::string_view bytes) {
          came += bytes;
          return true;
        },
        context);
    checks.expect(came == content, "other bytes come back");
    store.remove(log->id, context);
  });
}

void check_model(Checks& checks, LLMClient llm) {
  checks.begin_service("llm");
  checks.run("chat", [&](const CallContext& context) {
    ChatRequest request;
    request.messages = {{"user", "Answer with the one word: ok"}};
    request.max_tokens = 16;
    llm.chat(request, context);
  });
}

}  // namespace

std::vector<LiveCheck> check_live(const Runtime& runtime, const git::Git& git) {
  std::vector<LiveCheck> list;
  Checks checks(list);
  const config::Config& config = runtime.config();
  if (!config.task_registry_url.empty()) check_registry(checks, runtime.registry());
  if (!config.repo_pool_url.empty()) check_pool(checks, runtime.pool(), git);
  if (!config.artifact_store_url.empty()) check_artifacts(checks, runtime.artifacts());
  // Which costs tokens: only where a key or an endpoint says that there is a model.
  if (runtime.has_model()) check_model(checks, runtime.llm());
  return list;
}

}  // namespace necrocode::app
