#include "necrocode/runner/test_detection.hpp"

#include <algorithm>
#include <functional>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/runner/task_context.hpp"

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

// --- What a convention may ask of a repository.

using Sign = std::function<bool(const fs::path& root)>;

Sign any(std::vector<Sign> signs) {
  return [signs = std::move(signs)](const fs::path& root) {
    return std::any_of(signs.begin(), signs.end(), [&](const Sign& sign) { return sign(root); });
  };
}

Sign all(std::vector<Sign> signs) {
  return [signs = std::move(signs)](const fs::path& root) {
    return std::all_of(signs.begin(), signs.end(), [&](const Sign& sign) { return sign(root); });
  };
}

Sign there(std::string name) {
  return [name = std::move(name)](const fs::path& root) {
    std::error_code error;
    return fs::exists(root / name, error);
  };
}

Sign any_there(const std::vector<std::string>& names) {
  std::vector<Sign> signs;
  for (const std::string& name : names) signs.push_back(there(name));
  return any(std::move(signs));
}

Sign holds(std::string name, std::string text) {
  return [name = std::move(name), text = std::move(text)](const fs::path& root) {
    return read_if_there(root / name).find(text) != std::string::npos;
  };
}

/// One of the patterns names a file right in the folder.
Sign file_in(std::string folder, std::vector<std::string> patterns) {
  return [folder = std::move(folder), patterns = std::move(patterns)](const fs::path& root) {
    constexpr int kEntries = 10'000;
    int looked_at = 0;
    std::error_code error;
    for (fs::directory_iterator entry(root / folder, error), end;
         !error && entry != end && looked_at < kEntries; entry.increment(error), ++looked_at) {
      if (matches_any(patterns, entry->path().filename().string())) return true;
    }
    return false;
  };
}

Sign make_target(std::string target) {
  return [rule = std::move(target) + ":"](const fs::path& root) {
    for (const char* name : {"GNUmakefile", "makefile", "Makefile"}) {  // as make looks for them
      const std::string makefile = read_if_there(root / name);
      if (makefile.empty()) continue;
      const auto lines = split(makefile, '\n');
      return std::any_of(lines.begin(), lines.end(),
                         [&](std::string_view line) { return line.starts_with(rule); });
    }
    return false;
  };
}

/// `place`: "scripts" of package.json, "tasks" of deno.json.
Sign test_script(std::string file, std::string place) {
  return [file = std::move(file), place = std::move(place)](const fs::path& root) {
    const auto json = Json::try_parse(read_if_there(root / file));
    const std::string script = json ? (*json)[place]["test"].string_or("") : "";
    // What npm itself writes into a package without tests.
    return !script.empty() && script.find("no test specified") == std::string::npos;
  };
}

// --- The table.

struct Convention {
  Sign sign;
  std::vector<std::string> commands;
};

// First those that drive other tools' tests as well, then one language after the other, then those
// that are known by the names of test files only. Where a tool can write a JUnit report, it is told
// to, at a place of usual_junit_places().
const std::vector<Convention>& conventions() {
  const Sign npm_test = test_script("package.json", "scripts");
  const Sign python_project = any_there({"pyproject.toml", "setup.py", "setup.cfg"});
  const std::string junit = "necrocode-junit.xml";
  static const std::vector<Convention> kConventions = {
      {there("CMakeLists.txt"),
       {"cmake -S . -B build", "cmake --build build",
        "ctest --test-dir build --no-tests=error --output-on-failure --output-junit " +
            junit}},  // below build/
      {there("meson.build"), {"meson setup build", "meson test -C build --print-errorlogs"}},
      {make_target("test"), {"make test"}},
      {make_target("check"), {"make check"}},
      {there("configure"), {"./configure", "make check"}},

      {all({npm_test, any_there({"bun.lock", "bun.lockb"})}), {"bun run test"}},
      {any_there({"bun.lock", "bun.lockb"}), {"bun test"}},
      {all({npm_test, there("pnpm-lock.yaml")}), {"pnpm test"}},
      {all({npm_test, there("yarn.lock")}), {"yarn test"}},
      {npm_test, {"npm test --silent"}},
      {test_script("deno.json", "tasks"), {"deno task test"}},
      {any_there({"deno.json", "deno.jsonc"}), {"deno test"}},

      {any({any_there({"pytest.ini", "conftest.py"}), holds("pyproject.toml", "[tool.pytest"),
            holds("setup.cfg", "[tool:pytest]")}),
       {"python3 -m pytest -q --junitxml=" + junit}},
      {all({there("tests"), python_project}), {"python3 -m unittest discover -s tests"}},
      {there("Cargo.toml"), {"cargo test --quiet"}},
      {there("go.mod"), {"go test ./..."}},
      {all({there("pom.xml"), there("mvnw")}), {"./mvnw -q -B test"}},
      {there("pom.xml"), {"mvn -q -B test"}},
      {there("gradlew"), {"./gradlew test"}},
      {any_there({"build.gradle", "build.gradle.kts"}), {"gradle test"}},
      {file_in(".", {"*.sln", "*.slnx", "*.csproj", "*.fsproj", "*.vbproj"}), {"dotnet test"}},
      {there("mix.exs"), {"mix test"}},
      {there("Package.swift"), {"swift test"}},
      {all({there("composer.json"), any_there({"phpunit.xml", "phpunit.xml.dist"})}),
       {"vendor/bin/phpunit --log-junit " + junit}},
      {all({there("Gemfile"), any_there({".rspec", "spec"})}), {"bundle exec rspec"}},
      {all({there("Gemfile"), there("Rakefile")}), {"bundle exec rake test"}},

      // https://nodejs.org/api/test.html, "Running tests from the command line".
      {all({there("package.json"),
            any({file_in(".", {"*.test.js", "*.test.mjs", "*.test.cjs", "*-test.js", "*_test.js",
                               "test-*.js", "test.js"}),
                 file_in("test", {"*.js", "*.mjs", "*.cjs"})})}),
       {"node --test"}},
      {file_in("tests", {"test_*.py"}), {"python3 -m unittest discover -s tests"}},
      {file_in("test", {"test_*.py"}), {"python3 -m unittest discover -s test"}},
      {file_in(".", {"test_*.py"}), {"python3 -m unittest discover"}},
  };
  return kConventions;
}

}  // namespace

std::vector<std::string> detect_test_commands(const fs::path& root) {
  for (const Convention& convention : conventions()) {
    if (convention.sign(root)) return convention.commands;
  }
  return {};
}

}  // namespace necrocode::runner
