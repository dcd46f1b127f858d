#include "necrocode/pool/slot.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/git/index_file.hpp"
#include "necrocode/git/work_tree.hpp"
#include "necrocode/pool/slot_processes.hpp"

namespace necrocode::pool {
namespace {

namespace fs = std::filesystem;

// Relative, so that it stays right when the slot moves to a lease's path.
constexpr std::string_view kGitFile = "gitdir: ../git\n";

void make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) throw StorageError("cannot create " + path.string() + ": " + error.message());
}

bool is_real_folder(const fs::path& path) {
  struct stat status = {};
  return ::lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

void erase(const fs::path& path) {
  if (!remove_tree(path)) throw StorageError("cannot remove " + path.string());
}

/// False when there is nothing to move.
bool move(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return true;
  if (errno == ENOENT && !is_real_folder(from)) return false;
  throw_errno("cannot move", from.string());
}

[[noreturn]] void not_clean(const std::string& why) {
  ErrorInfo info;
  info.service = "repo-pool";
  info.operation = "prove";
  throw git::GitError("the slot is not clean: " + why, std::move(info));
}

}  // namespace

Slot::Slot(const git::Git& git, fs::path pool_folder, int number)
    : git_(git),
      pool_folder_(std::move(pool_folder)),
      folder_(pool_folder_ / "slots" / std::to_string(number)) {}

fs::path Slot::tree_of(const fs::path& pool_folder, const std::string& slot_id) {
  return pool_folder / "work" / slot_id / "tree";
}
fs::path Slot::git_dir_of(const fs::path& pool_folder, const std::string& slot_id) {
  return pool_folder / "work" / slot_id / "git";
}

void Slot::clear_strangers() {
  const fs::path dirty = folder_ / "dirty";
  if (is_real_folder(folder_ / "ready") && !is_real_folder(dirty)) move(folder_ / "ready", dirty);
  if (!is_real_folder(dirty)) erase(dirty);
  make_folder(dirty);
  // A holder who is still inside keeps a folder that nobody else gets.
  const bool held = end_processes_in(dirty, lease_begin_).left != 0;
  if (held && is_real_folder(dirty / "tree")) move(dirty / "tree", dirty / "held");
  for (const fs::directory_entry& entry : fs::directory_iterator(dirty)) {
    const bool is_tree = entry.path().filename() == "tree" && is_real_folder(entry.path());
    if (!is_tree) erase(entry.path());  // the git directory with all that was made in it
  }
  make_folder(dirty / "tree");
  fs::permissions(dirty / "tree", fs::perms::owner_all | fs::perms::group_read |
                                      fs::perms::group_exec | fs::perms::others_read |
                                      fs::perms::others_exec);
  erase(dirty / "tree" / ".git");
}

git::Repository Slot::renew_git_directory(const std::string& origin, const CallContext& context) {
  const git::Repository repository(git_, folder_ / "dirty" / "git", folder_ / "dirty" / "tree");
  repository.init({pool_folder_ / "store.git" / "objects"}, context, origin);
  std::error_code none_yet;
  // The index of the last proof tells which files need not be written anew.
  fs::copy_file(folder_ / "clean.index", repository.git_dir() / "index", none_yet);
  return repository;
}

CleanProof Slot::prove(const git::Repository& repository) {
  const std::vector<git::IndexEntry> index = git::read_index(repository.git_dir() / "index");
  const git::TreeComparison found = git::compare_tree(repository.work_tree(), index);
  if (found.difference_count != 0) not_clean(join(found.differences, ", "));
  if (!found.failures.empty()) not_clean(join(found.failures, ", "));
  // A holder's first edit must get another change time than the checkout's.
  git::wait_for_next_tick(index);
  CleanProof proof;
  proof.files = found.files;
  proof.disk_bytes = found.disk_bytes;
  return proof;
}

CleanProof Slot::prepare(const std::string& branch, const std::string& commit,
                         const std::string& origin, const CallContext& context) {
  make_folder(folder_);
  clear_strangers();
  const git::Repository repository = renew_git_directory(origin, context);
  repository.check_out(branch, commit, true, context);
  CleanProof proof = prove(repository);
  proof.commit = commit;
  proof.branch = branch;
  write_file_atomic(repository.work_tree() / ".git", kGitFile);
  fs::copy_file(repository.git_dir() / "index", folder_ / "clean.index",
                fs::copy_options::overwrite_existing);
  erase(folder_ / "ready");
  move(folder_ / "dirty", folder_ / "ready");
  return proof;
}

void Slot::hand_out(const std::string& slot_id) {
  lease_begin_ = ticks_since_boot();
  const fs::path target = pool_folder_ / "work" / slot_id;
  if (::rename((folder_ / "ready").c_str(), target.c_str()) == 0) return;
  if (errno != ENOENT) throw_errno("cannot move", (folder_ / "ready").string());
  make_folder(pool_folder_ / "work");
  if (!move(folder_ / "ready", target)) throw StorageError("the slot has no work tree");
}

bool Slot::take_back(const std::string& slot_id) {
  make_folder(folder_);
  erase(folder_ / "dirty");
  return move(pool_folder_ / "work" / slot_id, folder_ / "dirty");
}

void Slot::discard() {
  if (is_real_folder(folder_ / "dirty")) end_processes_in(folder_ / "dirty", lease_begin_);
  erase(folder_);
}

}  // namespace necrocode::pool
