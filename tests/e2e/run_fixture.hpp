// What the tests of `necrocode run` share: one run without services, and a clone to lend to it.
#pragma once

#include <algorithm>

#include "e2e/fixture.hpp"

namespace necrocode::test {

class Run : public EndToEnd {
 protected:
  int run_task(const Json& task, std::vector<std::string> more = {}, Json* result = nullptr) {
    std::vector<std::string> arguments = {"run", write_task(task), "--json", "--data",
                                          path("data").string()};
    if (std::find(more.begin(), more.end(), "--out") == more.end()) {
      arguments.insert(arguments.end(), {"--out", path("out").string()});
    }
    if (model_) arguments.insert(arguments.end(), {"--llm-endpoint", endpoint()});
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::string output;
    const int code = run(arguments, &output);
    std::string last;
    for (const std::string_view line : split(output, '\n')) {
      if (!line.empty()) last = line;
    }
    if (result) *result = Json::try_parse(last).value_or(Json());
    return code;
  }
  /// No retries, so that what is out of reach is soon known to be.
  std::string fast_config() {
    write_file_atomic(path("config.yaml"), "llm_retry_count: 0\nnetwork_retry_count: 0\n");
    return path("config.yaml").string();
  }
  std::string remote_branches() {
    return git({"-C", remote(), "branch", "--format=%(refname:short)"});
  }
};

// A clone of the user's, with whatever stands in it: nothing of theirs may be lost.
class RunInAClone : public Run {
 protected:
  void SetUp() override { make_remote({{"README", "hello\n"}, {".gitignore", ".env\n"}}); }
  std::string clone() const { return path("clone").string(); }
  Json slot_task() const {
    Json in_slot = task();
    in_slot.erase("repo_url");
    in_slot.set("slot_path", clone());
    return in_slot;
  }
};

}  // namespace necrocode::test
