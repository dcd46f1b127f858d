// What the tests of the services, the worker and `verify` as processes share: all services of one
// process, behind a tap.
#pragma once

#include "e2e/fixture.hpp"

namespace necrocode::test {

class Services : public EndToEnd {
 protected:
  void SetUp() override {
    make_remote({{"README", "hello\n"}});
    url_ = serve_tapped();
    net::ServiceOptions options;
    options.base_url = url_;
    registry_ = std::make_unique<TaskRegistryClient>(std::move(options));
  }

  void submit(const Json& task) {
    Json one = task;
    one.erase("task_id");
    one.set("id", task["task_id"].string_or("").substr(4));
    registry_->submit(Json::object({{"spec_name", "e2e"}, {"tasks", Json::Array{one}}}));
  }
  std::unique_ptr<Program> worker(const std::string& name, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"worker",   "--url",  url_,     "--llm-endpoint",
                                          endpoint(), "--json", "--data", path(name).string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return start(arguments);
  }
  std::string state_of(const std::string& id) {
    return std::string(registry::to_string(registry_->get_task(id).state));
  }
  int leased_slots() {
    net::ServiceOptions options;
    options.base_url = url_;
    RepoPoolClient pool(std::move(options));
    int leased = 0;
    for (const Json& one : pool.list_pools()["items"].items()) {
      const Json whole = pool.get_pool(one["name"].string_or(""));
      for (const Json& slot : whole["slots"].items())
        leased += slot["state"] == Json("leased") ? 1 : 0;
    }
    return leased;
  }

  std::string url_;
  std::unique_ptr<TaskRegistryClient> registry_;
};

}  // namespace necrocode::test
