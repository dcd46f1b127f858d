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

// Empty when it is not a regular file: a FIFO planted there must not make us wait.
std::string read_plain(const fs::path& file) {
  std::error_code error;
  if (!fs::is_regular_file(file, error)) return {};
  return std::string(trim(read_file(file, 64 * limits::kMiB)));
}

// True when the git directory names this work tree: as that of a linked one, or of a submodule.
bool leads_back(const fs::path& git_dir, const fs::path& root) {
  std::error_code error;
  const std::string dot_git = read_plain(git_dir / "gitdir");
  if (!dot_git.empty()) return fs::equivalent(dot_git, root / ".git", error);
  const std::string config = read_plain(git_dir / "config");
  for (const std::string_view line : split(config, '\n')) {
    constexpr std::string_view kWorkTree = "worktree = ";
    const std::string_view setting = trim(line);
    if (!setting.starts_with(kWorkTree)) continue;
    return fs::equivalent(git_dir / setting.substr(kWorkTree.size()), root, error);
  }
  return false;
}

fs::path find_common_dir(const fs::path& git_dir) {
  const std::string text = read_plain(git_dir / "commondir");
  if (text.empty()) return git_dir;
  const fs::path named(text);
  return fs::weakly_canonical(named.is_absolute() ? named : git_dir / named);
}

}  // namespace

GivenClone::GivenClone(fs::path root, std::string called)
    : root_(std::move(root)),
      called_(std::move(called)),
      lock_(::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  // The folder's own lock, free again when the process ends, however that happens.
  if (!lock_) fail(" is not a folder that can be opened");
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) throw_errno("cannot lock", root_.string());
    ErrorInfo info;
    info.operation = "prepare";
    info.target = root_.string();
    throw WorkspacePreparationError("another run is at work in " + called_, std::move(info));
  }
  find_git_dir();
  common_dir_ = find_common_dir(git_dir_);
  look_again();
  require_idle();
}

void GivenClone::fail(const std::string& what) const {
  ErrorInfo info;
  info.operation = "prepare";
  info.target = root_.string();
  throw WorkspacePreparationError(called_ + what, std::move(info));
}

void GivenClone::find_git_dir() {
  git_dir_ = root_ / ".git";
  std::error_code error;
  const fs::file_status status = fs::symlink_status(git_dir_, error);
  if (fs::is_directory(status)) return;
  if (!fs::is_regular_file(status)) fail(" is not a git work tree");
  const std::string line = read_plain(git_dir_);
  if (!line.starts_with("gitdir: ")) fail("'s .git file names no git directory");
  const fs::path named(line.substr(8));
  git_dir_ = named.is_absolute() ? named : fs::weakly_canonical(root_ / named);
  // Else the file could lead anywhere.
  if (!leads_back(git_dir_, root_)) {
    fail("'s .git file names a git directory that is not of this work tree");
  }
}

void GivenClone::look_again() {
  root_permissions_ = fs::status(root_).permissions();
  head_ = read_plain(git_dir_ / "HEAD");
  const bool on_branch = head_.starts_with("ref: refs/heads/");
  head_commit_ = on_branch ? ref(head_.substr(5)).value_or("") : head_;
  head_name_ = on_branch ? head_.substr(5 + kHeads.size()) : head_commit_;
  if (git::is_object_id(head_commit_)) return;
  ErrorInfo info;
  info.operation = "prepare";
  info.target = root_.string();
  throw NoCommitError(called_ + " has no commit to start from", std::move(info));
}

void GivenClone::require_idle() const {
  std::error_code error;
  for (const auto& [name, operation] : kUnfinished) {
    if (!fs::exists(fs::symlink_status(git_dir_ / name, error))) continue;
    fail(" is in the middle of " + std::string(operation) + "; finish or abort it first");
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
      fail("'s branch \"" + branch + "\" is checked out in another work tree of it");
    }
  }
}

void GivenClone::require_room_for(const std::string& branch) const {
  require_not_checked_out_elsewhere(branch);
  for (std::size_t slash = branch.find('/'); slash != std::string::npos;
       slash = branch.find('/', slash + 1)) {
    const std::string above = branch.substr(0, slash);
    if (branch_commit(above)) {
      fail(" has a branch \"" + above + "\", so there can be no \"" + branch +
           "\"; name another branch_name");
    }
  }
  std::error_code error;
  const std::string below = std::string(kHeads) + branch + "/";
  const std::string packed = read_plain(common_dir_ / "packed-refs");
  if (fs::is_directory(common_dir_ / kHeads / branch, error) ||
      packed.find(" " + below) != std::string::npos) {
    fail(" has branches below \"" + branch + "\"; name another branch_name");
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
