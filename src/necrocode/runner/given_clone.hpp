// GivenClone: a clone that somebody else made and lent to a run, locked while it lasts. Its git
// directory is read and written as plain data: no git of ours runs with its configuration, and
// nothing of it is written through a link. Nothing of the user's is ever overwritten.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"

namespace necrocode::runner {

/// Its HEAD names no commit that is there.
class NoCommitError : public WorkspacePreparationError {
 public:
  using WorkspacePreparationError::WorkspacePreparationError;
};

class GivenClone {
 public:
  /// `called`: what errors call it. Throws WorkspacePreparationError when `root` is no work tree,
  /// when another run has it, and when git stopped in the middle of something there (a rebase, a
  /// merge …); NoCommitError.
  explicit GivenClone(std::filesystem::path root, std::string called = "slot_path");
  /// Reads HEAD and the folder's permissions anew.
  void look_again();

  const std::filesystem::path& root() const { return root_; }
  /// `.git`, or what the `.git` file of a linked work tree or of a submodule names.
  const std::filesystem::path& git_dir() const { return git_dir_; }
  /// Where refs, objects and config are.
  const std::filesystem::path& common_dir() const { return common_dir_; }
  const std::string& head_commit() const { return head_commit_; }
  /// HEAD itself: "ref: refs/heads/…", or the commit.
  const std::string& head() const { return head_; }
  /// True when `.git` is a folder in the work tree.
  bool has_git_folder() const { return git_dir_ == root_ / ".git"; }
  std::optional<std::string> branch_commit(const std::string& branch) const;
  /// The permissions that the work tree's folder had when it was lent.
  std::filesystem::perms root_permissions() const { return root_permissions_; }
  /// It has or had sparse-checkout patterns: files may be missing on purpose.
  bool looks_sparse() const;
  /// The commits at which a shallow clone's history is cut off, as git's `shallow` file; or empty.
  std::string shallow_boundary() const;

  /// Throws WorkspacePreparationError when git stopped in the middle of something, or another git
  /// command holds the index.
  void require_idle() const;
  /// Throws WorkspacePreparationError when `branch` is checked out in another work tree, or a
  /// branch of the clone stands in its way (as `feature` does of `feature/x`).
  void require_room_for(const std::string& branch) const;
  /// HEAD on `branch` at `commit`, with a copy of `index`, and a line in HEAD's reflog, so that
  /// `git checkout -` leads back. The work tree must be there already. `identity`: NAME <EMAIL>.
  void stand_on(const std::string& branch, const std::string& commit,
                const std::filesystem::path& index, const std::string& identity) const;

 private:
  void require_not_checked_out_elsewhere(const std::string& branch) const;
  void log_move(const std::string& branch, const std::string& commit,
                const std::string& identity) const;
  std::optional<std::string> ref(const std::string& name) const;
  [[noreturn]] void fail(const std::string& what) const;
  void find_git_dir();
  std::filesystem::path root_;
  std::string called_;
  std::filesystem::path git_dir_;
  std::filesystem::path common_dir_;
  std::string head_;
  std::string head_commit_;
  std::string head_name_;  ///< the branch, or the commit where there is none
  std::filesystem::perms root_permissions_{};
  FileDescriptor lock_;
};

}  // namespace necrocode::runner
