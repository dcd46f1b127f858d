// LentTree: the user's clone, lent to a program that is not trusted: the work tree itself, and in
// place of its `.git` a copy, whose commits are taken over like a stranger's. The user's own `.git`
// is written only at the end, by us: the branch that the program committed to, and nothing else.
//
// Where the sandbox cannot show the copy in place of `.git`, GIT_DIR names it, and the program may
// reach the user's own: what steers git there, HEAD and refs are put back; objects are not.
// Content filters (LFS) and `core.autocrlf` are not applied to files that the program changed;
// settings that the user's configuration includes from other files are not seen. Attributes are
// those from before the program began.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/git/repository.hpp"
#include "necrocode/process/sandbox.hpp"

namespace necrocode::exec {

/// The work tree as it was before the program began.
struct TreeBefore {
  std::string branch;  ///< checked out; empty: HEAD is detached
  std::string head;    ///< its commit
  std::string tree;    ///< of all files, dirty and untracked ones too, but for ignored ones
  std::vector<std::string> dirty;  ///< paths that were not as in `head`
};

/// What the program did, however it ended.
struct TreeAfter {
  std::string tree;                    ///< as `TreeBefore::tree`
  std::vector<git::FileChange> files;  ///< from the one to the other
  std::string diff;                    ///< the same, binary-safe
  std::string diff_left_out{};         ///< why there is none, though there are files; or empty
  std::vector<std::string> unread{};   ///< paths that we may not read; no part of the change
};

/// The program's own commits, taken over.
struct TakenCommits {
  std::string branch;  ///< where they are now
  std::string from, to;
  std::size_t count = 0;
  std::string moved_aside;  ///< why they are on a branch of their own, or empty
};

class LentTree {
 public:
  /// `folder`: anywhere in the work tree. `scratch`: an empty folder of ours on any file system.
  /// Throws TaskContextValidationError when `folder` is in no clone with a commit; with
  /// `require_clean` WorkspacePreparationError when something is not as committed, naming it;
  /// WorkspacePreparationError when git stopped in the middle of something there, or another run
  /// has it.
  LentTree(const git::Git& git, const std::filesystem::path& folder,
           const std::filesystem::path& scratch, bool require_clean, bool covered,
           const CallContext& context);
  ~LentTree();

  const std::filesystem::path& root() const;
  const TreeBefore& before() const;

  // What the program's sandbox and environment need.
  std::vector<process::SandboxedCommand::Cover> covers() const;
  std::vector<std::filesystem::path> writable() const;
  std::vector<std::filesystem::path> read_only() const;
  std::vector<std::string> env() const;

  /// HEAD to the work tree before, as a patch that `git apply` takes; empty when it was clean.
  std::string users_work(const CallContext& context) const;
  /// The work tree now. Files that the program closed to their owner, us, are opened.
  TreeAfter look(const CallContext& context);
  /// Files that match a glob are as before again; those that were not. Also of those removed.
  std::vector<std::string> restore(const std::vector<std::string>& globs,
                                   const CallContext& context);
  /// The work tree is as in `tree`, which look() gave, again; what git ignores stays.
  void return_to(const std::string& tree, const CallContext& context);
  /// Hooks, configuration and the like that the program left in its copy, or in the user's `.git`,
  /// where that was not covered; there they are as before again. Also repositories in the work tree
  /// that the program changed, or made: these are renamed, so that git finds them no more.
  std::vector<std::string> put_back();
  /// Fetches what the program committed into the user's clone: onto the branch that was checked out
  /// where that only adds to it, else, and for a branch that the user has, onto `aside`. The user's
  /// index follows; the work tree stays. Nothing when it made none.
  std::optional<TakenCommits> take_commits(const std::string& aside, const CallContext& context);
  /// A commit of the program's change on top of its own commits, or of HEAD, for a push: without
  /// what was dirty before. Throws WorkspacePreparationError naming the paths when the program
  /// changed what was dirty, or when the last look left the diff out. In no branch. Only after
  /// take_commits(). HEAD itself when there is no change at all.
  std::string commit(const TreeAfter& after, const std::string& message,
                     const CallContext& context);
  /// Of the remote that the branch follows, else "origin", with the credentials taken out. Throws
  /// TaskContextValidationError when there is none.
  std::string remote_url() const;
  const git::Repository& repository() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace necrocode::exec
