#include "necrocode/runner/test_runner.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <set>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;

std::string read_if_there(const fs::path& file) {
  std::error_code error;
  if (!fs::is_regular_file(fs::symlink_status(file, error))) return {};
  try {
    return read_file(file, limits::kMiB);
  } catch (const StorageError&) {
    return {};  // unreadable or huge: not a build file that we can judge
  }
}

bool has(const fs::path& root, std::string_view name) {
  std::error_code error;
  return fs::exists(root / name, error);
}

bool has_make_target(const std::string& makefile, std::string_view target) {
  for (const std::string_view line : split(makefile, '\n')) {
    if (line.starts_with(target) && line.substr(target.size()).starts_with(":")) return true;
  }
  return false;
}

std::vector<std::string> make_commands(const fs::path& root) {
  std::string makefile = read_if_there(root / "Makefile");
  if (makefile.empty()) makefile = read_if_there(root / "makefile");
  for (const std::string_view target : {"test", "check"}) {
    if (has_make_target(makefile, target)) return {"make " + std::string(target)};
  }
  return {};
}

std::vector<std::string> npm_commands(const fs::path& root) {
  const auto package = Json::try_parse(read_if_there(root / "package.json"));
  const std::string script = package ? (*package)["scripts"]["test"].string_or("") : "";
  // npm's own template for a package without tests.
  if (script.empty() || script.find("no test specified") != std::string::npos) return {};
  return {"npm test --silent"};
}

std::vector<std::string> python_commands(const fs::path& root) {
  const bool pytest =
      has(root, "pytest.ini") || has(root, "conftest.py") ||
      read_if_there(root / "pyproject.toml").find("[tool.pytest") != std::string::npos ||
      read_if_there(root / "setup.cfg").find("[tool:pytest]") != std::string::npos;
  if (pytest) return {"python3 -m pytest -q"};
  if (has(root, "tests") &&
      (has(root, "pyproject.toml") || has(root, "setup.py") || has(root, "setup.cfg"))) {
    return {"python3 -m unittest discover -s tests"};
  }
  return {};
}

// What lstat() says of a file. Any change of it, and any move of it, changes the change time, which
// no program can set; that its folder is not exchanged meanwhile, the sandbox sees to.
struct FileState {
  dev_t device = 0;
  ino_t inode = 0;
  std::int64_t changed_ns = 0;
  friend bool operator==(const FileState&, const FileState&) = default;
};

std::optional<FileState> look_at(const fs::path& path) {
  struct stat status = {};
  if (::lstat(path.c_str(), &status) != 0) return std::nullopt;
  return FileState{status.st_dev, status.st_ino,
                   status.st_ctim.tv_sec * 1'000'000'000LL + status.st_ctim.tv_nsec};
}

std::vector<std::optional<FileState>> look_at_all(const fs::path& root,
                                                  const std::vector<std::string>& files) {
  std::vector<std::optional<FileState>> states;
  for (const std::string& file : files) states.push_back(look_at(root / file));
  return states;
}

// The folders that hold these files, without the root.
std::vector<fs::path> folders_of(const fs::path& root, const std::vector<std::string>& files) {
  std::set<fs::path> folders;
  for (const std::string& file : files) {
    if (file.find('/') != std::string::npos) folders.insert((root / file).parent_path());
  }
  return {folders.begin(), folders.end()};
}

Json stream_json(const process::CapturedStream& stream, std::size_t bytes) {
  return Json::object({{"text", to_valid_utf8(head_and_tail(stream.text(), bytes))},
                       {"bytes", stream.total_bytes}});
}

}  // namespace

std::string TestCommandResult::verdict() const {
  if (result.ok() && !changed_read_only.empty()) {
    return "changed the read-only file " + printable(changed_read_only);
  }
  switch (result.end) {
    case process::CommandEnd::kExited:
      return result.exit_code == 0 ? "passed"
                                   : "failed with exit code " + std::to_string(result.exit_code);
    case process::CommandEnd::kSignalled:
      return "killed by signal " + std::to_string(result.signal);
    case process::CommandEnd::kTimedOut:
      return "timed out after " + human_duration(result.duration);
    case process::CommandEnd::kCancelled:
      return "cancelled";
  }
  return "failed";
}

bool TestReport::passed() const {
  return !commands.empty() && first_failure() == nullptr;
}

const TestCommandResult* TestReport::first_failure() const {
  const auto failed =
      std::find_if(commands.begin(), commands.end(),
                   [](const TestCommandResult& command) { return !command.passed(); });
  return failed == commands.end() ? nullptr : &*failed;
}

std::chrono::nanoseconds TestReport::duration() const {
  std::chrono::nanoseconds total{0};
  for (const TestCommandResult& command : commands) total += command.result.duration;
  return total;
}

Json TestReport::to_json(std::size_t output_bytes) const {
  Json list = Json::array();
  for (const TestCommandResult& command : commands) {
    list.push_back(Json::object(
        {{"command", command.command},
         {"passed", command.passed()},
         {"verdict", command.verdict()},
         {"exit_code", command.result.exit_code},
         {"duration_seconds", std::chrono::duration<double>(command.result.duration).count()},
         {"stdout", stream_json(command.result.out, output_bytes)},
         {"stderr", stream_json(command.result.err, output_bytes)}}));
  }
  return Json::object({{"passed", passed()},
                       {"duration_seconds", std::chrono::duration<double>(duration()).count()},
                       {"commands", std::move(list)}});
}

std::vector<std::string> detect_test_commands(const fs::path& root) {
  if (has(root, "CMakeLists.txt")) {
    return {"cmake -S . -B build", "cmake --build build",
            "ctest --test-dir build --output-on-failure"};
  }
  for (const auto detect : {make_commands, npm_commands, python_commands}) {
    if (auto commands = detect(root); !commands.empty()) return commands;
  }
  if (has(root, "Cargo.toml")) return {"cargo test --quiet"};
  if (has(root, "go.mod")) return {"go test ./..."};
  if (has(root, "pom.xml")) return {"mvn -q -B test"};
  if (has(root, "gradlew")) return {"./gradlew test"};
  if (has(root, "build.gradle") || has(root, "build.gradle.kts")) return {"gradle test"};
  return {};
}

void TestRunner::run(const Workspace& workspace, const std::vector<std::string>& commands,
                     bool fail_fast, std::chrono::seconds timeout, const CallContext& context,
                     TestReport& report) {
  report.commands.clear();
  process::SandboxedCommand sandboxed;
  sandboxed.command.env = process::clean_environment();
  // A .pyc is only looked up by whole seconds and size: a quick change would run the old one.
  sandboxed.command.env.push_back("PYTHONDONTWRITEBYTECODE=1");
  sandboxed.command.working_directory = workspace.root;
  sandboxed.command.timeout = timeout;
  sandboxed.workspace = workspace.root;
  sandboxed.read_only = workspace.read_only;
  sandboxed.covers = workspace.covers;
  sandboxed.protect = {workspace.root / ".git"};
  for (const std::string& path : workspace.protect) {
    sandboxed.protect.push_back(workspace.root / path);
  }
  sandboxed.pinned = folders_of(workspace.root, workspace.read_only_files);
  const auto as_given = look_at_all(workspace.root, workspace.read_only_files);
  for (const std::string& command : commands) {
    sandboxed.command.argv = {"/bin/sh", "-c", command};
    log_.line("$ " + command);
    process::CommandResult result =
        sandbox_.run(sandboxed, context, [this](std::string_view piece) { log_.output(piece); });
    log_.flush();
    TestCommandResult& last = report.commands.emplace_back();
    last.command = command;
    last.result = std::move(result);
    for (std::size_t i = 0; i < as_given.size() && last.changed_read_only.empty(); ++i) {
      const std::string& file = workspace.read_only_files[i];
      if (look_at(workspace.root / file) != as_given[i]) last.changed_read_only = file;
    }
    log_.line(last.command + ": " + last.verdict());
    const bool context_ended = context.cancelled() || context.expired();
    if (context_ended && !last.passed()) {
      ErrorInfo info;
      info.operation = "test";
      info.end = context.cancelled() ? CallEnd::kCancelled : CallEnd::kDeadline;
      throw TimeoutError(
          context.cancelled() ? "cancelled while testing" : "the task's time ran out while testing",
          std::move(info));
    }
    if (fail_fast && !last.passed()) break;
  }
}

}  // namespace necrocode::runner
