#include "necrocode/runner/test_detection.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;

using Files = std::vector<std::pair<std::string, std::string>>;

std::string detect(const Files& files) {
  TemporaryDirectory root;
  for (const auto& [name, content] : files) {
    fs::create_directories((root.path() / name).parent_path());
    write_file_atomic(root.path() / name, content);
  }
  return join(detect_test_commands(root.path()), "; ");
}

const std::string kTestScript = R"({"scripts":{"test":"jest"}})";
const std::string kNoTests =
    R"({"scripts":{"test":"echo \"Error: no test specified\" && exit 1"}})";

TEST(Detection, OfEachConventionThenItsCommands) {
  const std::vector<std::pair<Files, std::string>> kTrees = {
      {{}, ""},
      {{{"README.md", "x"}}, ""},
      {{{"CMakeLists.txt", ""}},
       "cmake -S . -B build; cmake --build build; ctest --test-dir build --no-tests=error "
       "--output-on-failure "
       "--output-junit necrocode-junit.xml"},
      {{{"meson.build", ""}}, "meson setup build; meson test -C build --print-errorlogs"},
      {{{"Makefile", "all:\n\ntest: all\n"}}, "make test"},
      {{{"makefile", "check:\n"}}, "make check"},
      {{{"GNUmakefile", "x:\n"}, {"Makefile", "test:\n"}}, ""},
      {{{"configure", "#!/bin/sh\n"}}, "./configure; make check"},
      {{{"package.json", kTestScript}}, "npm test --silent"},
      {{{"package.json", kTestScript}, {"package-lock.json", ""}}, "npm test --silent"},
      {{{"package.json", kTestScript}, {"pnpm-lock.yaml", ""}}, "pnpm test"},
      {{{"package.json", kTestScript}, {"yarn.lock", ""}}, "yarn test"},
      {{{"package.json", kTestScript}, {"bun.lock", ""}}, "bun run test"},
      {{{"package.json", "{}"}, {"bun.lockb", ""}}, "bun test"},
      {{{"deno.json", R"({"tasks":{"test":"x"}})"}}, "deno task test"},
      {{{"deno.jsonc", "// x\n{}"}}, "deno test"},
      {{{"package.json", kNoTests}}, ""},
      {{{"package.json", kNoTests}, {"test/a.js", ""}}, "node --test"},
      {{{"package.json", "{}"}, {"a.test.mjs", ""}}, "node --test"},
      {{{"package.json", "{}"}, {"src/a.test.mjs", ""}}, ""},
      {{{"a.test.mjs", ""}}, ""},
      {{{"pytest.ini", ""}}, "python3 -m pytest -q --junitxml=necrocode-junit.xml"},
      {{{"conftest.py", ""}}, "python3 -m pytest -q --junitxml=necrocode-junit.xml"},
      {{{"pyproject.toml", "[tool.pytest.ini_options]\n"}},
       "python3 -m pytest -q --junitxml=necrocode-junit.xml"},
      {{{"setup.cfg", "[tool:pytest]\n"}}, "python3 -m pytest -q --junitxml=necrocode-junit.xml"},
      {{{"pyproject.toml", ""}, {"tests/x.py", ""}}, "python3 -m unittest discover -s tests"},
      {{{"tests/test_x.py", ""}}, "python3 -m unittest discover -s tests"},
      {{{"tests/x.py", ""}}, ""},
      {{{"test/test_x.py", ""}}, "python3 -m unittest discover -s test"},
      {{{"test_x.py", ""}}, "python3 -m unittest discover"},
      {{{"Cargo.toml", ""}}, "cargo test --quiet"},
      {{{"go.mod", ""}}, "go test ./..."},
      {{{"pom.xml", ""}}, "mvn -q -B test"},
      {{{"pom.xml", ""}, {"mvnw", ""}}, "./mvnw -q -B test"},
      {{{"build.gradle", ""}, {"gradlew", ""}}, "./gradlew test"},
      {{{"build.gradle", ""}}, "gradle test"},
      {{{"build.gradle.kts", ""}}, "gradle test"},
      {{{"x.sln", ""}}, "dotnet test"},
      {{{"x.fsproj", ""}}, "dotnet test"},
      {{{"mix.exs", ""}}, "mix test"},
      {{{"Package.swift", ""}}, "swift test"},
      {{{"composer.json", ""}, {"phpunit.xml.dist", ""}},
       "vendor/bin/phpunit --log-junit necrocode-junit.xml"},
      {{{"composer.json", ""}}, ""},
      {{{"Gemfile", ""}, {"spec/x_spec.rb", ""}}, "bundle exec rspec"},
      {{{"Gemfile", ""}, {"Rakefile", ""}}, "bundle exec rake test"},
      {{{"Gemfile", ""}}, ""},
  };
  for (const auto& [files, commands] : kTrees) {
    EXPECT_EQ(detect(files), commands) << (files.empty() ? "" : files.back().first);
  }
}

// What drives the others' tests comes first.
TEST(Detection, OfSeveralConventionsThenTheFirstOfTheTable) {
  Files files = {{"tests/test_x.py", ""}, {"go.mod", ""}};
  EXPECT_EQ(detect(files), "go test ./...");
  files.emplace_back("conftest.py", "");
  EXPECT_EQ(detect(files), "python3 -m pytest -q --junitxml=necrocode-junit.xml");
  files.emplace_back("package.json", kTestScript);
  EXPECT_EQ(detect(files), "npm test --silent");
  files.emplace_back("Makefile", "test:\n");
  EXPECT_EQ(detect(files), "make test");
  files.emplace_back("CMakeLists.txt", "");
  EXPECT_THAT(detect(files), testing::StartsWith("cmake"));
}

TEST(Detection, OfBuildFilesThatAreLinksThenNotRead) {
  TemporaryDirectory root;
  fs::create_symlink("/dev/zero", root.path() / "Makefile");
  fs::create_symlink("/dev/zero", root.path() / "package.json");
  EXPECT_THAT(detect_test_commands(root.path()), testing::IsEmpty());
}

}  // namespace
}  // namespace necrocode::runner
