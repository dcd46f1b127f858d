#include "necrocode/agent/installation.hpp"

#include <gmock/gmock.h>
#include <stdlib.h>

#include "necrocode/base/file.hpp"

namespace necrocode::agent {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

// A made-up home with made-up installations.
class Installations : public testing::Test {
 protected:
  Installations() {
    ::setenv("HOME", home_.c_str(), 1);
    fs::create_directories(home_);
  }
  ~Installations() override { ::setenv("HOME", old_home_.c_str(), 1); }

  fs::path put(const std::string& path, const std::string& content =
                                            "\x7f"
                                            "ELF") {
    const fs::path file = home_ / path;
    fs::create_directories(file.parent_path());
    write_file_atomic(file, content, 0755);
    return file;
  }
  void link(const std::string& path, const std::string& target) {
    fs::create_directories((home_ / path).parent_path());
    fs::create_symlink(target, home_ / path);
  }
  std::optional<Installation> find(const std::string& name, const std::string& folder) {
    return find_installation(name, (home_ / folder).string() + ":/usr/bin:/bin", home_, workspace_);
  }
  // What is shown, as seen from the home.
  std::vector<std::string> visible(const std::string& name, const std::string& folder) {
    const auto found = find(name, folder);
    EXPECT_TRUE(found) << name;
    std::vector<std::string> paths;
    for (const fs::path& path : found ? found->visible : std::vector<fs::path>()) {
      paths.push_back(path.lexically_relative(home_).string());
    }
    return paths;
  }

  TemporaryDirectory folder_;
  fs::path home_ = folder_.path() / "home/user";
  fs::path workspace_ = home_ / "src/app";
  std::string old_home_ = ::getenv("HOME") ? ::getenv("HOME") : "";
};

constexpr const char* kNodeScript = "#!/usr/bin/env node\n";

TEST_F(Installations, NoSuchProgramThenNothing) {
  put("bin/data");
  fs::permissions(home_ / "bin/data", fs::perms::owner_read);
  EXPECT_FALSE(find("no-such-agent", "bin"));
  EXPECT_FALSE(find("", "bin"));
  EXPECT_FALSE(find("./bin", "bin")) << "a folder";
}

TEST_F(Installations, NpmGlobalWithNvmThenItsModulesAndItsNode) {
  put(".nvm/versions/node/v20/lib/node_modules/@openai/codex/bin/codex.js", kNodeScript);
  put(".nvm/versions/node/v20/bin/node");
  link(".nvm/versions/node/v20/bin/codex", "../lib/node_modules/@openai/codex/bin/codex.js");
  const auto found = find("codex", ".nvm/versions/node/v20/bin");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->program, home_ / ".nvm/versions/node/v20/bin/codex");
  EXPECT_THAT(found->path, UnorderedElementsAre(home_ / ".nvm/versions/node/v20/bin"));
  EXPECT_THAT(
      visible("codex", ".nvm/versions/node/v20/bin"),
      UnorderedElementsAre(".nvm/versions/node/v20/bin", ".nvm/versions/node/v20/lib/node_modules",
                           ".nvm/versions/node/v20"));
}

TEST_F(Installations, FolderThatIsALinkThenSeenByBothNames) {
  put("tools/v1/lib/node_modules/pi/cli.js", kNodeScript);
  link("tools/v1/bin/pi", "../lib/node_modules/pi/cli.js");
  link("tools/current", "v1");
  EXPECT_THAT(visible("pi", "tools/current/bin"),
              UnorderedElementsAre("tools/current/bin", "tools/v1/bin",
                                   "tools/current/lib/node_modules", "tools/v1/lib/node_modules"));
}

TEST_F(Installations, NodeBesideTheProgramAndNotInPathThenFoundThere) {
  put("n/bin/node");
  put("n/bin/agent", "#!/usr/bin/env -S no-such-node-here\n");
  put("n/bin/other", "#! /usr/bin/env -S A=b node --flag\n");
  EXPECT_THAT(find_installation((home_ / "n/bin/agent").string(), "/bin", home_, workspace_)->path,
              IsEmpty());
  EXPECT_THAT(
      find_installation((home_ / "n/bin/other").string(), "/nowhere", home_, workspace_)->path,
      UnorderedElementsAre(home_ / "n/bin"));
}

TEST_F(Installations, PipxThenTheWholeEnvironmentAndThePythonThatItLinksTo) {
  put(".local/pipx/venvs/aider/pyvenv.cfg", "home = x\n");
  const fs::path python = home_ / ".local/pipx/venvs/aider/bin/python";
  put(".local/pipx/venvs/aider/bin/aider", "#!" + python.string() + "\n");
  put(".local/share/uv/python/cpython-3.12/bin/python3.12");
  put(".local/share/uv/python/cpython-3.12/lib/python3.12/os.py");
  link(".local/pipx/venvs/aider/bin/python",
       (home_ / ".local/share/uv/python/cpython-3.12/bin/python3.12").string());
  link(".local/bin/aider", (home_ / ".local/pipx/venvs/aider/bin/aider").string());
  EXPECT_THAT(visible("aider", ".local/bin"),
              UnorderedElementsAre(".local/bin", ".local/pipx/venvs/aider",
                                   ".local/share/uv/python/cpython-3.12"));
}

TEST_F(Installations, NativeBinaryThenTheFileAlone) {
  put(".local/share/claude/versions/2.1.0");
  link(".local/bin/claude", "../share/claude/versions/2.1.0");
  EXPECT_THAT(visible("claude", ".local/bin"),
              UnorderedElementsAre(".local/bin", ".local/share/claude/versions/2.1.0"));
}

TEST_F(Installations, LinkedPackageOfADeveloperThenThePackage) {
  put("code/agent/package.json", "{}");
  put("code/agent/bin/cli", kNodeScript);
  link("npm/lib/node_modules/agent", "../../../code/agent");
  link("npm/bin/agent", "../lib/node_modules/agent/bin/cli");
  EXPECT_THAT(visible("agent", "npm/bin"),
              UnorderedElementsAre("npm/bin", "npm/lib/node_modules", "code/agent"));
}

TEST_F(Installations, PnpmThenTheStoreThatItsPackagesLinkThrough) {
  put("p/node_modules/.pnpm/oc@1/node_modules/oc/bin/oc", kNodeScript);
  link("p/node_modules/oc", ".pnpm/oc@1/node_modules/oc");
  link("p/node_modules/.bin/oc", "../oc/bin/oc");
  EXPECT_THAT(visible("oc", "p/node_modules/.bin"), UnorderedElementsAre("p/node_modules"));
}

TEST_F(Installations, PackageJsonInTheHomeThenTheHomeIsNotShown) {
  put("package.json", "{}");
  put("scripts/agent", kNodeScript);
  EXPECT_THAT(visible("agent", "scripts"), UnorderedElementsAre("scripts"));
}

TEST_F(Installations, ScriptAmongOtherThingsThenItsFolderOnlyWhereItsLanguageImportsFromThere) {
  put("projects/other/.env", "secret");
  put("projects/agent.sh", "#!/bin/bash -e\n");
  EXPECT_THAT(visible("projects/agent.sh", "bin"), UnorderedElementsAre("projects/agent.sh"));
  put("tool/agent.py", "#!/usr/bin/env python3\n");
  EXPECT_THAT(visible("tool/agent.py", "bin"), UnorderedElementsAre("tool"));
}

TEST_F(Installations, ProgramInTheHomeItselfThenTheFileAlone) {
  put("agent.sh", "#!/bin/sh\n");
  put(".netrc", "secret");
  EXPECT_THAT(visible("./agent.sh", "bin"), UnorderedElementsAre("agent.sh"));
}

TEST_F(Installations, InTheWorkspaceOrTheSystemThenNothingMoreIsShown) {
  put("src/app/node_modules/oc/bin/oc", "#!/bin/sh\n");
  link("src/app/node_modules/.bin/oc", "../oc/bin/oc");
  EXPECT_THAT(visible("src/app/node_modules/.bin/oc", "bin"), IsEmpty());
  EXPECT_THAT(visible("sh", "bin"), IsEmpty());
}

TEST_F(Installations, LinksWithoutEndThenNothing) {
  link("bin/a", "b");
  link("bin/b", "a");
  EXPECT_FALSE(find("a", "bin"));
  // A script that is its own interpreter ends nobody's search.
  put("bin/self", "#!" + (home_ / "bin/self").string() + "\n");
  EXPECT_THAT(visible("self", "bin"), UnorderedElementsAre("bin"));
}

}  // namespace
}  // namespace necrocode::agent
