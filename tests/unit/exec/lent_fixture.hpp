// A user's clone, lent to a program that is a shell script here, as a sandbox would have it run.
#pragma once

#include <gmock/gmock.h>

#include <cstdlib>
#include <optional>

#include "necrocode/exec/lent_tree.hpp"
#include "support/git_fixture.hpp"

namespace necrocode::exec {

namespace fs = std::filesystem;
using test::read;
using test::shell;
using test::write;

inline process::Supervisor& supervisor() {
  static process::Supervisor instance;
  return instance;
}

/// The parameter: whether the sandbox can show the copy in place of `.git`.
class LentTreeTest : public testing::TestWithParam<bool> {
 protected:
  LentTreeTest() {
    fs::create_directory(home());
    ::setenv("HOME", home().c_str(), 1);
    ::unsetenv("XDG_CONFIG_HOME");
    root_ = fs::canonical(remote_.user());
  }
  ~LentTreeTest() override {
    // Whatever a program did, the clone is whole.
    EXPECT_THAT(shell(root_, "git fsck --full --strict --no-dangling 2>&1"), testing::IsEmpty());
    EXPECT_EQ(shell(root_,
                    "find $(git rev-parse --git-common-dir) -name '*.lock' "
                    "-o -name '.necrocode-*'"),
              "");
  }

  void lend(const fs::path& folder = {}, bool require_clean = false) {
    scratch_.emplace("necrocode-lent-");
    tree_.emplace(git_, folder.empty() ? root_ : folder, scratch_->path(), require_clean,
                  GetParam(), context_);
  }
  /// What went wrong when it was lent.
  template <class Error>
  std::string refusal(const fs::path& folder = {}, bool require_clean = false) {
    try {
      lend(folder, require_clean);
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing";
  }
  /// Runs a script in the work tree with what covers() and env() promise.
  std::string program(const std::string& script) const {
    write(home() / "program", "set -e\n" + script + "\n");
    std::string command = "env ";
    for (const char* name :
         {"GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"}) {
      command += std::string("-u ") + name + " ";
    }
    command += "GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 ";
    for (const std::string& variable : tree_->env()) command += "'" + variable + "' ";
    if (GetParam()) {
      command += "bwrap --dev-bind / / --tmpfs /run/necrocode ";
      for (const auto& cover : tree_->covers()) {
        command += (cover.writable ? "--bind '" : "--ro-bind '") + cover.shown.string() + "' '" +
                   cover.at.string() + "' ";
      }
    }
    return shell(root_, command + "/bin/sh '" + (home() / "program").string() + "'");
  }
  std::optional<TakenCommits> take() { return tree_->take_commits("necrocode/exec-1", context_); }
  /// Where it made some.
  TakenCommits take_some() { return take().value(); }
  std::string status() const { return shell(root_, "git status --porcelain --branch"); }
  std::string branches() const {
    return shell(root_, "git for-each-ref --format='%(refname:short)' refs/heads | tr '\\n' ' '");
  }
  std::string id(const std::string& revision) const {
    return shell(root_, "git rev-parse '" + revision + "'");
  }
  fs::path home() const { return folder_.path() / "home"; }
  /// Folder of the program's copy.
  fs::path copy() const { return scratch_->path() / "shown"; }

  test::GitRemote remote_;
  TemporaryDirectory folder_;
  fs::path root_;
  git::Git git_{supervisor(), {}};
  CallContext context_;
  std::optional<TemporaryDirectory> scratch_;
  std::optional<LentTree> tree_;
};

inline std::string lent_name(const testing::TestParamInfo<bool>& info) {
  return info.param ? "covered" : "shown_beside";
}

}  // namespace necrocode::exec
