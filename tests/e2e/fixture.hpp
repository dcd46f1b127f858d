// What the end-to-end tests share: the shipped binary, a repository with a bare remote, a replay
// model.
#pragma once

#include <gmock/gmock.h>

#include <memory>
#include <string>

#include "necrocode/agent_runner.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/replay.hpp"
#include "support/api_tap.hpp"
#include "support/eventually.hpp"
#include "support/program.hpp"

namespace necrocode::test {

namespace fs = std::filesystem;

/// A model's answer that creates or replaces these files.
inline Json change(const std::vector<std::pair<std::string, std::string>>& files) {
  Json changes = Json::array();
  for (const auto& [path, content] : files) {
    changes.push_back(
        Json::object({{"file_path", path}, {"operation", "create"}, {"content", content}}));
  }
  return Json::object({{"code_changes", std::move(changes)}, {"explanation", "as asked"}});
}

inline Json answer(const Json& content, int times = 1) {
  return Json::object(
      {{"times", times},
       {"answer",
        Json::object({{"content", content.is_string() ? content : Json(content.dump())}})}});
}

inline Json raw_answer(int status, const Json& body, int times = 1) {
  return Json::object(
      {{"times", times}, {"answer", Json::object({{"status", status}, {"body", body}})}});
}

/// How many processes of this machine have `mark` in their command line.
inline int processes_with(const std::string& mark) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    if (!parse_uint(entry.path().filename().string())) continue;
    try {
      if (read_file(entry.path() / "cmdline", limits::kMiB).find(mark) != std::string::npos)
        ++count;
    } catch (const StorageError&) {
      continue;  // it ended while we looked
    }
  }
  return count;
}

class EndToEnd : public testing::Test {
 protected:
  fs::path path(const std::string& name) const { return folder_.path() / name; }

  std::vector<std::string> environment() const {
    std::vector<std::string> env = {"HOME=" + path("home").string(), "NO_COLOR=1"};
    for (const char* name : {"PATH", "LANG"}) {
      if (const char* value = std::getenv(name)) env.push_back(std::string(name) + "=" + value);
    }
    env.insert(env.end(), extra_env_.begin(), extra_env_.end());
    return env;
  }

  std::unique_ptr<Program> start(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), NECROCODE_BINARY);
    return std::make_unique<Program>(arguments, environment(), path("stderr"));
  }
  int run(const std::vector<std::string>& arguments, std::string* output = nullptr) {
    std::string ignored;
    return start(arguments)->wait(output ? output : &ignored);
  }
  std::string stderr_text() const {
    return fs::exists(path("stderr")) ? read_file(path("stderr"), limits::kMiB) : "";
  }

  /// Runs git as a user would; its output without the last newline.
  std::string git(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"git", "-c", "user.name=Test", "-c",
                                         "user.email=test@localhost", "-c", "safe.directory=*"});
    Program program(arguments, environment(), path("git-stderr"));
    std::string output;
    EXPECT_EQ(program.wait(&output), 0)
        << join(arguments, " ") << read_file(path("git-stderr"), limits::kMiB);
    return std::string(trim(output));
  }

  /// A bare remote whose `main` holds these files; also left as a clone in path("clone").
  void make_remote(const std::vector<std::pair<std::string, std::string>>& files) {
    git({"init", "--quiet", "--bare", "--initial-branch=main", remote()});
    git({"clone", "--quiet", remote(), path("clone").string()});
    for (const auto& [name, content] : files) {
      fs::create_directories(path("clone/" + name).parent_path());
      write_file_atomic(path("clone/" + name), content);
    }
    git({"-C", path("clone").string(), "add", "-A"});
    git({"-C", path("clone").string(), "commit", "--quiet", "-m", "start"});
    git({"-C", path("clone").string(), "push", "--quiet", "origin", "HEAD:main"});
  }
  std::string remote() const { return path("remote.git").string(); }

  /// Serves these cassette entries as the model.
  void serve_model(Json::Array entries) {
    const Json cassette = Json::object({{"version", 1}, {"entries", Json(std::move(entries))}});
    model_ = std::make_unique<llm::ReplayServer>(llm::Cassette::parse(cassette.dump()));
    model_->start();
  }
  std::string endpoint() const { return model_->url(); }
  std::size_t model_calls() const { return model_->served().size(); }

  /// Starts `necrocode serve` on a free port; its URL.
  std::string serve(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"serve", "--listen", "127.0.0.1:0", "--data",
                                          path("services").string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    services_ = start(arguments);
    const auto line = services_->read_line();
    const auto ready = Json::try_parse(line.value_or(""));
    EXPECT_TRUE(ready.has_value()) << stderr_text();
    return ready ? (*ready)["url"].string_or("") : "";
  }

  /// serve() through a tap, which holds all that is said against /openapi.json, at the test's end
  /// or at check_taps(); the tap's URL.
  std::string serve_tapped() {
    ApiTap& tap = *taps_.emplace_back(std::make_unique<ApiTap>());
    const auto url = net::Url::parse(serve({"--public-url", tap.url()}));
    tap.connect(static_cast<std::uint16_t>(url ? url->port : 0));
    return tap.url();
  }
  void check_taps() {
    for (const auto& tap : taps_) tap->expect_as_declared();
  }
  void TearDown() override { check_taps(); }

  /// A task whose test is that `file` holds "good".
  Json task(const std::string& number = "1") const {
    return Json::object({{"task_id", "e2e:" + number},
                         {"title", "Write the file"},
                         {"repo_url", remote()},
                         {"base_branch", "main"},
                         {"test_commands", std::vector<std::string>{"grep -q good file.txt"}},
                         {"timeout_seconds", 60}});
  }
  std::string write_task(const Json& task) {
    write_file_atomic(path("task.json"), task.dump());
    return path("task.json").string();
  }

  TemporaryDirectory folder_{"necrocode-e2e-"};
  std::vector<std::string> extra_env_;
  std::unique_ptr<llm::ReplayServer> model_;
  std::unique_ptr<Program> services_;
  std::vector<std::unique_ptr<ApiTap>> taps_;
};

}  // namespace necrocode::test
