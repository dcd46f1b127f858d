// Real git repositories in temporary folders, for tests: made with plain git, as a user would.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "necrocode/base/file.hpp"

namespace necrocode::test {

/// Runs a shell command in `folder`; its output. Fails the test unless it exits with 0.
inline std::string shell(const std::filesystem::path& folder, const std::string& script) {
  const TemporaryDirectory output;
  const std::string out = (output.path() / "out").string();
  const std::string command =
      "cd '" + folder.string() +
      "' && export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=user "
      "GIT_AUTHOR_EMAIL=user@localhost GIT_COMMITTER_NAME=user GIT_COMMITTER_EMAIL=user@localhost "
      "GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=init.defaultBranch GIT_CONFIG_VALUE_0=main && { " +
      script + "\n} > '" + out + "' 2>&1";
  const int status = std::system(command.c_str());
  std::string text = read_file(out, 16 << 20);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << script << "\n" << text;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

inline void write(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

inline std::string read(const std::filesystem::path& path) {
  return read_file(path, 16 << 20);
}

/// A bare remote with one commit on main (a.txt, src/b.txt, bin/run as executable, link → a.txt,
/// .gitignore of *.o), and a clone "user" to change it from.
class GitRemote {
 public:
  GitRemote() {
    shell(root_.path(), R"(
      git init -q --bare remote.git
      git init -q user && cd user
      mkdir src bin && echo alpha > a.txt && echo beta > src/b.txt && echo '*.o' > .gitignore
      printf '#!/bin/sh\n' > bin/run && chmod +x bin/run && ln -s a.txt link
      git add -A && git commit -q -m first && git remote add origin ../remote.git
      git push -q origin main)");
  }
  std::filesystem::path root() const { return root_.path(); }
  std::filesystem::path path() const { return root_.path() / "remote.git"; }
  std::filesystem::path user() const { return root_.path() / "user"; }
  std::string url() const { return path().string(); }
  std::string tip(const std::string& branch = "main") const {
    return shell(path(), "git rev-parse 'refs/heads/" + branch + "'");
  }
  /// Commits and pushes what `script`, run in the user's clone, changes; the new commit.
  std::string change(const std::string& script, const std::string& branch = "main") const {
    return shell(user(), "git checkout -q -B " + branch + " && { " + script +
                             "\n} && git add -A && git commit -q -m change && git push -q origin " +
                             branch + " && git rev-parse HEAD");
  }

 private:
  TemporaryDirectory root_{"necrocode-remote-"};
};

}  // namespace necrocode::test
