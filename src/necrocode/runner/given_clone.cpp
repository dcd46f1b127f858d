#include "necrocode/runner/given_clone.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/git/repository.hpp"
#include "necrocode/runner/change_set.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHeads = "refs/heads/";
constexpr std::size_t kIndexBytes = limits::kGiB;

// What git leaves in its directory while it waits for the user to go on. A commit or a branch of
// ours in between would become part of it.
constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kUnfinished = {
    {{"rebase-merge", "a rebase"},
     {"rebase-apply", "a rebase or git am"},
     {"MERGE_HEAD", "a merge"},
     {"CHERRY_PICK_HEAD", "a cherry-pick"},
     {"REVERT_HEAD", "a revert"},
     {"sequencer", "a cherry-pick or revert"},
     {"BISECT_LOG", "a bisect"},
     {"index.lock", "another git command (its index.lock is there)"}}};

[[noreturn]] void fail(const std::string& summary, const fs::path& target) {
  ErrorInfo info;
  info.operation = "prepare";
  info.target = target.string();
  throw WorkspacePreparationError(summary, std::move(info));
}

// Empty when it is not a regular file: a FIFO planted there must not make us wait.
std::string read_plain(const fs::path& file) {
  std::error_code error;
  if (!fs::is_regular_file(file, error)) return {};
  return std::string(trim(read_file(file, 64 * limits::kMiB)));
}

// The folder's own lock, free again when the process ends, however that happens.
FileDescriptor lock(const fs::path& root) {
  FileDescriptor folder(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) fail("slot_path is not a folder that can be opened", root);
  if (::flock(folder.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) throw_errno("cannot lock", root.string());
    fail("another run is at work in slot_path", root);
  }
  return folder;
}

fs::path find_git_dir(const fs::path& root) {
  const fs::path dot_git = root / ".git";
  std::error_code error;
  const fs::file_status status = fs::symlink_status(dot_git, error);
  if (fs::is_directory(status)) return dot_git;
  if (!fs::is_regular_file(status)) fail("slot_path is not a git work tree", root);
  const std::string line = read_plain(dot_git);
  if (!line.starts_with("gitdir: ")) fail("slot_path's .git file names no git directory", root);
  const fs::path named(line.substr(8));
  const fs::path git_dir = named.is_absolute() ? named : root / named;
  // A linked work tree and its git directory name each other; else the file could lead anywhere.
  if (!fs::equivalent(fs::path(read_plain(git_dir / "gitdir")), dot_git, error)) {
    fail("slot_path's .git file names a git directory that is not of this work tree", root);
  }
  return git_dir;
}

fs::path find_common_dir(const fs::path& git_dir) {
  const std::string text = read_plain(git_dir / "commondir");
  if (text.empty()) return git_dir;
  const fs::path named(text);
  return fs::weakly_canonical(named.is_absolute() ? named : git_dir / named);
}

}  // namespace

GivenClone::GivenClone(fs::path root) : root_(std::move(root)), lock_(lock(root_)) {
  git_dir_ = find_git_dir(root_);
  common_dir_ = find_common_dir(git_dir_);
  look_again();
  require_idle();
}

void GivenClone::look_again() {
  root_permissions_ = fs::status(root_).permissions();
  head_ = read_plain(git_dir_ / "HEAD");
  const bool on_branch = head_.starts_with("ref: refs/heads/");
  head_commit_ = on_branch ? ref(head_.substr(5)).value_or("") : head_;
  head_name_ = on_branch ? head_.substr(5 + kHeads.size()) : head_commit_;
  if (!git::is_object_id(head_commit_)) fail("slot_path has no commit to start from", root_);
}

void GivenClone::require_idle() const {
  std::error_code error;
  for (const auto& [name, operation] : kUnfinished) {
    if (!fs::exists(fs::symlink_status(git_dir_ / name, error))) continue;
    fail("slot_path is in the middle of " + std::string(operation) + "; finish or abort it first",
         root_);
  }
}

bool GivenClone::looks_sparse() const {
  return !read_plain(git_dir_ / "info/sparse-checkout").empty();
}

std::string GivenClone::shallow_boundary() const {
  const std::string text = read_plain(common_dir_ / "shallow");
  return text.empty() ? text : text + "\n";
}

std::optional<std::string> GivenClone::ref(const std::string& name) const {
  if (!git::is_branch_name(name.substr(kHeads.size()))) return std::nullopt;
  if (const std::string loose = read_plain(common_dir_ / name); !loose.empty()) return loose;
  const std::string packed = read_plain(common_dir_ / "packed-refs");
  for (const std::string_view line : split(packed, '\n')) {
    const std::size_t space = line.find(' ');
    if (space != std::string_view::npos && line.substr(space + 1) == name) {
      return std::string(line.substr(0, space));
    }
  }
  return std::nullopt;
}

std::optional<std::string> GivenClone::branch_commit(const std::string& branch) const {
  return ref(std::string(kHeads) + branch);
}

void GivenClone::require_not_checked_out_elsewhere(const std::string& branch) const {
  std::vector<fs::path> git_dirs = {common_dir_};
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(common_dir_ / "worktrees", error)) {
    git_dirs.push_back(entry.path());
  }
  for (const fs::path& other : git_dirs) {
    if (fs::equivalent(other, git_dir_, error)) continue;
    if (read_plain(other / "HEAD") == "ref: " + std::string(kHeads) + branch) {
      fail("the branch \"" + branch + "\" is checked out in another work tree of slot_path's clone",
           root_);
    }
  }
}

void GivenClone::require_room_for(const std::string& branch) const {
  require_not_checked_out_elsewhere(branch);
  for (std::size_t slash = branch.find('/'); slash != std::string::npos;
       slash = branch.find('/', slash + 1)) {
    const std::string above = branch.substr(0, slash);
    if (branch_commit(above)) {
      fail("slot_path has a branch \"" + above + "\", so there can be no \"" + branch +
               "\"; name another branch_name",
           root_);
    }
  }
  std::error_code error;
  const std::string below = std::string(kHeads) + branch + "/";
  const std::string packed = read_plain(common_dir_ / "packed-refs");
  if (fs::is_directory(common_dir_ / kHeads / branch, error) ||
      packed.find(" " + below) != std::string::npos) {
    fail("slot_path has branches below \"" + branch + "\"; name another branch_name", root_);
  }
}

void GivenClone::stand_on(const std::string& branch, const std::string& commit,
                          const fs::path& index, const std::string& identity) const {
  const std::string name = std::string(kHeads) + branch;
  // Refs are written by the rules for a model's files: through no link.
  apply_changes(common_dir_, {{name, llm::Operation::kCreate, commit + "\n", {}}}, {});
  write_file_atomic(git_dir_ / "index", read_file(index, kIndexBytes));
  write_file_atomic(git_dir_ / "HEAD", "ref: " + name + "\n");
  log_move(branch, commit, identity);
}

// As gitrevisions(7) reads it: OLD NEW IDENTITY TIME ZONE \t MESSAGE. A clone without a reflog of
// HEAD gets none.
void GivenClone::log_move(const std::string& branch, const std::string& commit,
                          const std::string& identity) const {
  const FileDescriptor folder(
      ::open((git_dir_ / "logs").c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder) return;
  const FileDescriptor file(
      ::openat(folder.get(), "HEAD", O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat status = {};
  if (!file || ::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) return;
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(
      real_clock().system_now().time_since_epoch());
  write_all(file.get(), head_commit_ + " " + commit + " " + identity + " " +
                            std::to_string(now.count()) + " +0000\tcheckout: moving from " +
                            head_name_ + " to " + branch + "\n");
}

}  // namespace necrocode::runner
