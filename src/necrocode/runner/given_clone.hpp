// GivenClone: a clone that somebody else made and lent to a run (`slot_path`).
// Its git directory is read and written as plain data: no git of ours runs with its configuration,
// and nothing of it is written through a link. Nothing of the user's is ever overwritten.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace necrocode::runner {

class GivenClone {
 public:
  /// Throws WorkspacePreparationError when `root` is no work tree with a commit.
  explicit GivenClone(std::filesystem::path root);

  const std::filesystem::path& root() const { return root_; }
  /// `.git`, or what a linked work tree's `.git` file names.
  const std::filesystem::path& git_dir() const { return git_dir_; }
  /// Where refs, objects and config are.
  const std::filesystem::path& common_dir() const { return common_dir_; }
  const std::string& head_commit() const { return head_commit_; }
  /// True when `.git` is a folder in the work tree.
  bool has_git_folder() const { return git_dir_ == root_ / ".git"; }
  std::optional<std::string> branch_commit(const std::string& branch) const;

  /// Throws WorkspacePreparationError when another git command holds the index, or a branch of the
  /// clone stands in the way of `branch` (as `feature` does of `feature/x`).
  void require_room_for(const std::string& branch) const;
  /// HEAD on `branch` at `commit`, with a copy of `index`. The work tree must be there already.
  void stand_on(const std::string& branch, const std::string& commit,
                const std::filesystem::path& index) const;

 private:
  void require_not_checked_out_elsewhere(const std::string& branch) const;
  std::optional<std::string> ref(const std::string& name) const;
  std::filesystem::path root_;
  std::filesystem::path git_dir_;
  std::filesystem::path common_dir_;
  std::string head_commit_;
};

}  // namespace necrocode::runner
