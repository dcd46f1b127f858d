#include "necrocode/exec/lent_tree.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <utility>

#include "necrocode/base/check.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/exec/clone_config.hpp"
#include "necrocode/exec/closed_paths.hpp"
#include "necrocode/exec/commit_taker.hpp"
#include "necrocode/exec/frozen_attributes.hpp"
#include "necrocode/exec/nested_repositories.hpp"
#include "necrocode/exec/plain_folder.hpp"
#include "necrocode/exec/plain_git.hpp"
#include "necrocode/exec/steering_files.hpp"
#include "necrocode/exec/tree_entries.hpp"
#include "necrocode/git/index_file.hpp"
#include "necrocode/git/work_tree.hpp"
#include "necrocode/runner/given_clone.hpp"
#include "necrocode/runner/task_context.hpp"

namespace necrocode::exec {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kInfoBytes = limits::kMiB;
constexpr std::size_t kPathsToldBytes = 500;
constexpr std::string_view kAttributes = ".gitattributes";
constexpr int kAlternatesDepth = 5;  // git's own bound

[[noreturn]] void refuse(const std::string& summary, const fs::path& target) {
  ErrorInfo info;
  info.operation = "exec";
  info.target = target.string();
  throw TaskContextValidationError(summary, std::move(info));
}

[[noreturn]] void fail(const std::string& summary, const std::vector<std::string>& paths) {
  ErrorInfo info;
  info.operation = "exec";
  info.detail = printable(shorten(join(paths, ", "), kPathsToldBytes));
  throw WorkspacePreparationError(summary, std::move(info));
}

fs::path existing_folder(const fs::path& folder) {
  std::error_code error;
  const fs::path path = fs::canonical(folder, error);
  if (error || !fs::is_directory(path, error)) refuse("there is no such folder", folder);
  return path;
}

// The nearest folder upwards with a `.git`.
fs::path find_root(const fs::path& folder) {
  const fs::path start = existing_folder(folder);
  std::error_code error;
  for (fs::path root = start;; root = root.parent_path()) {
    if (root.filename() == ".git") refuse("the folder lies in a git directory", folder);
    if (fs::exists(fs::symlink_status(root / ".git", error))) return root;
    if (root == root.parent_path()) break;
  }
  refuse("the folder is in no git clone", folder);
}

runner::GivenClone lock_clone(const fs::path& root) {
  try {
    return runner::GivenClone(root, "the clone");
  } catch (const runner::NoCommitError& error) {
    std::error_code ignored;
    if (fs::exists(root / ".git/reftable", ignored)) {
      refuse("the clone keeps its refs in a reftable, which cannot be lent", root);
    }
    refuse(error.summary(), root);
  }
}

// What would have our git see another tree than the user's does.
void require_known_format(const CloneConfig& config, const runner::GivenClone& clone) {
  const auto is = [&](std::string_view key, std::string_view usual) {
    const auto value = config.get(key);
    return !value || *value == usual;
  };
  if (!is("extensions.objectformat", "sha1")) {
    refuse("the clone's objects are not named by SHA-1; such a clone cannot be lent", clone.root());
  }
  if (!is("extensions.refstorage", "files")) {
    refuse("the clone does not keep its refs in files; such a clone cannot be lent", clone.root());
  }
  if (config.is_true("core.sparsecheckout")) {
    refuse("a sparse checkout cannot be lent; `git sparse-checkout disable` first", clone.root());
  }
  const auto elsewhere = config.get("core.worktree");
  std::error_code error;
  if (elsewhere && !fs::equivalent(clone.git_dir() / *elsewhere, clone.root(), error)) {
    refuse("the clone's core.worktree names another folder", clone.root());
  }
}

CloneConfig read_config(const git::Git& git, const runner::GivenClone& clone,
                        const fs::path& scratch, const CallContext& context) {
  CloneConfig config = CloneConfig::read(
      git, {clone.common_dir() / "config", clone.git_dir() / "config.worktree"}, scratch, context);
  require_known_format(config, clone);
  return config;
}

// The object folders that `objects` reads from.
void add_alternates(const fs::path& objects, int depth, std::vector<fs::path>& found) {
  std::error_code error;
  const fs::path file = objects / "info/alternates";
  if (depth == kAlternatesDepth || !fs::is_regular_file(file, error)) return;
  const std::string text = read_file(file, kInfoBytes);
  for (const std::string_view line : split(text, '\n')) {
    if (line.empty() || line.front() == '#') continue;
    const fs::path folder = fs::weakly_canonical(objects / line);
    const bool known = std::find(found.begin(), found.end(), folder) != found.end();
    if (known || !fs::is_directory(folder, error)) continue;
    found.push_back(folder);
    add_alternates(folder, depth + 1, found);
  }
}

// In or below `path`.
bool has_below(const std::vector<git::IndexEntry>& index, const std::string& path) {
  const auto first = std::lower_bound(
      index.begin(), index.end(), path + "/",
      [](const git::IndexEntry& entry, const std::string& wanted) { return entry.path < wanted; });
  return first != index.end() && first->path.starts_with(path + "/");
}

std::vector<git::FileChange> without_counts(const std::vector<TreeDifference>& differences) {
  std::vector<git::FileChange> files;
  for (const TreeDifference& file : differences) {
    const bool same_type = file.old_mode.substr(0, 3) == file.new_mode.substr(0, 3);
    const char* status = !file.was_there() ? "A" : !file.is_there() ? "D" : same_type ? "M" : "T";
    files.push_back({status, file.path, std::nullopt, std::nullopt});
  }
  return files;
}

bool is_inside(const fs::path& path, const fs::path& folder) {
  const std::string inner = fs::weakly_canonical(path).string() + "/";
  return inner.starts_with(folder.string() + "/");
}

}  // namespace

struct LentTree::State {
  State(const git::Git& the_git, const fs::path& folder, const fs::path& the_scratch,
        bool is_covered, const CallContext& context)
      : git(the_git),
        root(find_root(folder)),
        scratch(existing_folder(the_scratch)),
        covered(is_covered),
        clone(lock_clone(root)),
        config(read_config(git, clone, scratch, context)),
        repository(git, scratch / "git", root),
        objects(fs::canonical(clone.common_dir() / "objects")),
        git_dir(clone.git_dir()),
        common(clone.common_dir()) {
    add_alternates(objects, 0, alternates);
  }

  const git::Git& git;
  fs::path root, scratch;
  bool covered;
  runner::GivenClone clone;
  CloneConfig config;
  git::Repository repository;  ///< ours, with an index of the whole work tree
  fs::path objects;            ///< the clone's
  std::vector<fs::path> alternates;
  PlainFolder git_dir, common;  ///< the clone's
  TreeBefore before;
  std::string dot_git;          ///< what it says where it is a file
  std::set<std::string> users;  ///< ignored paths and nested repositories before
  ClosedPaths closed;           ///< before
  std::string diff_left_out;    ///< of the last look
  std::optional<NestedRepositories> nested;
  std::optional<PlainFolder> shown;
  std::optional<CommitTaker> taker;
  std::optional<SteeringFiles> shown_files, git_dir_files, common_files;

  std::string name() const { return config.get("user.name").value_or(git.options().author_name); }
  std::string email() const {
    return config.get("user.email").value_or(git.options().author_email);
  }

  std::set<std::string> remotes(const Refs& refs) const {
    std::set<std::string> names = config.remotes();
    for (const auto& [ref, commit] : refs) {
      constexpr std::string_view kRemotes = "refs/remotes/";
      if (!ref.starts_with(kRemotes)) continue;
      const std::string name = ref.substr(kRemotes.size());
      names.insert(name.substr(0, name.find('/')));
    }
    return names;
  }

  /// What the user's git ignores beside .gitignore.
  std::string excludes() const {
    std::string text = common.read("info/exclude", kInfoBytes).value_or("");
    std::error_code error;
    const fs::path file = config.excludes_file();
    if (fs::is_regular_file(file, error)) text = read_file(file, kInfoBytes) + "\n" + text;
    return text;
  }

  // Our own git directory: HEAD, the rules for files, and the user's index for the times in it.
  void open_repository(const CallContext& context) {
    repository.init({objects}, context);
    const fs::path ours = repository.git_dir();
    fs::create_directories(ours / "info");
    write_file_atomic(ours / "info/exclude", excludes());
    if (const auto attributes = common.read("info/attributes", kInfoBytes)) {
      write_file_atomic(ours / "info/attributes", *attributes);
    }
    if (const std::string boundary = clone.shallow_boundary(); !boundary.empty()) {
      write_file_atomic(ours / "shallow", boundary);
    }
    write_file_atomic(ours / "HEAD", before.head + "\n");
    bool usable = copy_index(git_dir, ours);
    try {
      if (usable) git::read_index(ours / "index");
    } catch (const RunnerError&) {
      usable = false;  // it hides files from checks, or is of a kind that we do not read
    }
    if (!usable) {
      remove_tree(ours / "index");
      repository.run({"read-tree", before.head}, context);
    }
  }

  // Everything in the work tree that is not ignored, as a tree in our own objects. A repository in
  // an untracked folder is no part of it: git would run there, by that repository's configuration.
  std::string stage(const std::vector<std::string>& unreadable, const CallContext& context) const {
    std::vector<std::string> special;
    const std::vector<std::string> nested_now = git::nested_repositories(root, &special);
    std::string paths = std::string(":(top)") + '\0';
    std::string gone;
    const auto leave_out = [&](const std::string& path) {
      paths += ":(top,exclude,literal)" + path + '\0';
    };
    for (const std::string& path : unreadable) leave_out(path);
    if (!nested_now.empty() || !special.empty()) {
      const std::vector<git::IndexEntry> index = git::read_index(repository.git_dir() / "index");
      for (const std::string& path : nested_now) {
        if (!has_below(index, path)) leave_out(path);
      }
      for (const std::string& path : special) {
        leave_out(path);
        for (const git::IndexEntry& entry : index) {
          if (entry.path == path || entry.path.starts_with(path + "/")) gone += entry.path + '\0';
        }
      }
    }
    try {
      repository.run({"add", "--all", "--pathspec-from-file=-", "--pathspec-file-nul"}, context,
                     paths);
    } catch (const git::GitError& error) {
      // It has added everything, and minds that a path to leave out is ignored anyway.
      if (error.info().status != 1) throw;
    }
    if (!gone.empty()) {
      repository.run({"update-index", "--force-remove", "-z", "--stdin"}, context, gone);
    }
    std::string tree(trim(repository.run({"write-tree"}, context)));
    NECROCODE_CHECK(git::is_object_id(tree));
    return tree;
  }

  void look_before(bool require_clean, const CallContext& context) {
    before.head = clone.head_commit();
    if (const std::string& head = clone.head(); head.starts_with("ref: refs/heads/")) {
      before.branch = head.substr(std::string("ref: refs/heads/").size());
    }
    open_repository(context);
    closed = find_closed(PlainFolder(root));
    before.tree = stage(closed.unreadable, context);
    for (const git::FileChange& file : repository.changes("HEAD", "", context)) {
      before.dirty.push_back(file.path);
    }
    if (require_clean && !before.dirty.empty()) {
      fail("the clone has changes that are not committed; commit or stash them first",
           before.dirty);
    }
    nested.emplace(root, covered);
    users = nested->paths();
    const std::string ignored = repository.run(
        {"ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z"}, context);
    for (std::string_view path : split(ignored, '\0')) {
      if (path.ends_with('/')) path.remove_suffix(1);
      if (!path.empty()) users.emplace(path);
    }
    freeze_attributes(context);
  }

  // The program's own .gitattributes are files like any other: what they say does not count.
  void freeze_attributes(const CallContext& context) const {
    const PlainFolder work_tree(root);
    std::vector<std::string> paths;
    for (std::string& path : repository.tracked_files(context)) {
      if (name_of(path) == kAttributes) paths.push_back(std::move(path));
    }
    const auto depth = [](const std::string& path) {
      return std::count(path.begin(), path.end(), '/');
    };
    std::stable_sort(paths.begin(), paths.end(),
                     [&](const auto& a, const auto& b) { return depth(a) < depth(b); });
    std::vector<AttributesFile> files;
    for (const std::string& path : paths) {
      const std::string folder = parent_of(path);
      files.push_back({folder == "." ? "" : folder, work_tree.read(path, kInfoBytes).value_or("")});
    }
    write_file_atomic(repository.git_dir() / "info/attributes",
                      frozen_attributes(files, info_attributes()));
  }

  std::string info_attributes() const {
    return common.read("info/attributes", kInfoBytes).value_or("");
  }

  // After the program was at work: what it closed is opened again.
  std::string stage_after(const CallContext& context,
                          std::vector<std::string>* unread = nullptr) const {
    struct stat status = {};
    if (::stat(root.c_str(), &status) == 0 && (status.st_mode & S_IRWXU) != S_IRWXU) {
      ::chmod(root.c_str(), (status.st_mode & 07777) | S_IRWXU);
    }
    const ClosedPaths now = open_closed(PlainFolder(root), closed.closed);
    if (unread) *unread = now.unreadable;
    return stage(now.unreadable, context);
  }

  // What the program gets in place of `.git`.
  void fill_shown(const Refs& refs) const {
    shown->write("config", config.for_program(name(), email()), 0644);
    shown->write("HEAD", clone.head() + "\n", 0644);
    shown->write("packed-refs", packed(refs), 0644);
    shown->write("info/exclude", excludes(), 0644);
    if (const auto attributes = common.read("info/attributes", kInfoBytes)) {
      shown->write("info/attributes", *attributes, 0644);
    }
    if (const std::string boundary = clone.shallow_boundary(); !boundary.empty()) {
      shown->write("shallow", boundary, 0644);
    }
    std::string lines = shown_objects().string() + "\n";
    for (const fs::path& folder : alternates) lines += folder.string() + "\n";
    shown->write("objects/info/alternates", lines, 0644);
    for (const char* room : {"refs/heads/x", "refs/tags/x", "objects/pack/x"}) {
      shown->make_room(room);
    }
    copy_index(git_dir, shown->path());
  }

  void make_shown() {
    fs::create_directory(scratch / "shown");
    shown.emplace(scratch / "shown");
    const Refs refs = read_refs(common);
    fill_shown(refs);
    if (!clone.has_git_folder()) {
      dot_git = read_file(root / ".git", kInfoBytes);
      write_file_atomic(scratch / "dot-git", "gitdir: " + shown_place().string() + "\n");
    }
    taker.emplace(git, clone, *shown, scratch, refs, name() + " <" + email() + ">", remotes(refs));
    shown_files.emplace(*shown, false);
    if (covered) return;
    common_files.emplace(common, true);
    if (clone.git_dir() != clone.common_dir()) git_dir_files.emplace(git_dir, true);
  }

  void make_shown_anew() {
    remove_tree(shown->path());
    fs::create_directory(shown->path());
    shown->reopen();
    fill_shown(taker->refs());
  }

  // Where nothing covers it, the user's next git must find what it found before.
  void put_back_dot_git(std::vector<std::string>& told) const {
    if (!clone.has_git_folder()) {
      const PlainFolder work_tree(root);
      if (work_tree.read(".git", kInfoBytes) == dot_git) return;
      work_tree.write(".git", dot_git, 0644);
      told.push_back("the clone's .git");
      return;
    }
    if (git_dir.is_in_place()) return;
    const auto moved = git_dir.moved_to();
    remove_tree(git_dir.path());
    std::error_code error;
    if (moved) fs::rename(*moved, git_dir.path(), error);
    told.push_back(moved && !error ? "the clone's .git"
                                   : "the clone's .git (could not be put back)");
  }

  // Where the program sees the clone's objects, and its copy where `.git` is a file.
  fs::path shown_objects() const {
    return covered ? fs::path(process::kSandboxShown) / "objects" : objects;
  }
  fs::path shown_place() const { return fs::path(process::kSandboxShown) / "git"; }

  bool is_broken() const {
    return !shown->is_in_place() || !shown->look("HEAD") || !shown->look("refs") ||
           !shown->look("objects");
  }
};

LentTree::LentTree(const git::Git& git, const fs::path& folder, const fs::path& scratch,
                   bool require_clean, bool covered, const CallContext& context)
    : state_(std::make_unique<State>(git, folder, scratch, covered, context)) {
  if (is_inside(state_->scratch, state_->root)) {
    refuse("the run's own folder lies inside the clone; name another", state_->scratch);
  }
  state_->look_before(require_clean, context);
  state_->make_shown();
}

LentTree::~LentTree() = default;

const fs::path& LentTree::root() const {
  return state_->root;
}

const TreeBefore& LentTree::before() const {
  return state_->before;
}

const git::Repository& LentTree::repository() const {
  return state_->repository;
}

std::vector<process::SandboxedCommand::Cover> LentTree::covers() const {
  if (!state_->covered) return {};
  const fs::path dot_git = state_->root / ".git";
  std::vector<process::SandboxedCommand::Cover> covers = {
      {state_->shown_objects(), state_->objects, false}};
  if (state_->clone.has_git_folder()) {
    covers.push_back({dot_git, state_->shown->path(), true});
  } else {
    covers.push_back({state_->shown_place(), state_->shown->path(), true});
    covers.push_back({dot_git, state_->scratch / "dot-git", false});
  }
  for (const fs::path& place : state_->nested->git_dirs()) covers.push_back({place, place, false});
  return covers;
}

std::vector<fs::path> LentTree::writable() const {
  if (state_->covered) return {};
  return {state_->shown->path()};
}

std::vector<fs::path> LentTree::read_only() const {
  std::vector<fs::path> folders = state_->alternates;
  if (!state_->covered) folders.push_back(state_->objects);
  return folders;
}

std::vector<std::string> LentTree::env() const {
  std::vector<std::string> env;
  if (!state_->covered) {
    env = {"GIT_DIR=" + state_->shown->path().string(), "GIT_WORK_TREE=" + state_->root.string()};
  }
  struct stat status = {};
  if (::stat(state_->root.c_str(), &status) == 0 && status.st_uid != ::geteuid()) {
    env.insert(env.end(), {"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory",
                           "GIT_CONFIG_VALUE_0=" + state_->root.string()});
  }
  return env;
}

std::string LentTree::users_work(const CallContext& context) const {
  const TreeBefore& before = state_->before;
  if (before.dirty.empty()) return {};
  return state_->repository.diff(before.head, before.tree, context);
}

TreeAfter LentTree::look(const CallContext& context) {
  const git::Repository& repository = state_->repository;
  const std::string& from = state_->before.tree;
  TreeAfter after;
  after.tree = state_->stage_after(context, &after.unread);
  if (after.tree != from) {
    try {
      after.files = repository.changes(from, after.tree, context);
      after.diff = repository.diff(from, after.tree, context);
    } catch (const RunnerError& error) {
      after.diff_left_out = error.what();
      if (after.files.empty())
        after.files = without_counts(compare_trees(repository, from, after.tree, context));
    }
  }
  state_->diff_left_out = after.diff_left_out;
  return after;
}

std::vector<std::string> LentTree::restore(const std::vector<std::string>& globs,
                                           const CallContext& context) {
  if (globs.empty()) return {};
  const std::string now = state_->stage_after(context);
  std::vector<TreeDifference> wrong;
  for (TreeDifference& file :
       compare_trees(state_->repository, state_->before.tree, now, context)) {
    if (runner::matches_any(globs, file.path)) wrong.push_back(std::move(file));
  }
  std::set<std::string> tracked;
  for (std::string& path : state_->repository.tracked_files(context)) {
    tracked.insert(std::move(path));
  }
  for (std::string& path : made_files(state_->root, globs, tracked, state_->users)) {
    wrong.push_back({"000000", "100644", "", "", std::move(path)});
  }
  put_back_files(state_->repository, PlainFolder(state_->root), wrong, context);
  std::set<std::string> paths;
  for (TreeDifference& file : wrong) paths.insert(std::move(file.path));
  return {paths.begin(), paths.end()};
}

void LentTree::return_to(const std::string& tree, const CallContext& context) {
  const std::string now = state_->stage_after(context);
  put_back_files(state_->repository, PlainFolder(state_->root),
                 compare_trees(state_->repository, tree, now, context), context);
}

std::vector<std::string> LentTree::put_back() {
  std::vector<std::string> told;
  const auto put_back_in = [&](std::optional<SteeringFiles>& files, const std::string& where) {
    if (!files) return;
    std::vector<SteeringFiles::Difference> differences;
    try {
      differences = files->put_back();
    } catch (const StorageError& error) {
      told.push_back(where + "git directory (could not be put back: " + error.what() + ")");
    }
    for (const auto& [path, lost, found] : differences) {
      std::string words = where + path;
      if (!found.empty()) words += " (was at " + printable(shorten(found, 100)) + ")";
      if (lost) words += " (could not be put back)";
      told.push_back(std::move(words));
    }
  };
  if (state_->common_files) {
    state_->put_back_dot_git(told);
    for (const std::string& ref : state_->taker->written()) state_->common_files->accept(ref);
  }
  put_back_in(state_->common_files, "the clone's ");
  put_back_in(state_->git_dir_files, "the work tree's ");
  if (state_->is_broken()) {
    told.push_back(".git (removed)");
    state_->clone.look_again();
    state_->make_shown_anew();
  }
  put_back_in(state_->shown_files, ".git/");
  for (std::string& words : state_->nested->put_back()) told.push_back(std::move(words));
  for (std::string& ref : state_->taker->ignored()) told.push_back(std::move(ref));
  return told;
}

std::optional<TakenCommits> LentTree::take_commits(const std::string& aside,
                                                   const CallContext& context) {
  return state_->taker->take(aside, context);
}

// The parent's tree, brought to what the work tree has; but for paths that were dirty before, which
// stay as committed. What the parent has and we do not see is gone, or ignored.
std::string LentTree::commit(const TreeAfter& after, const std::string& message,
                             const CallContext& context) {
  if (!state_->diff_left_out.empty()) {
    fail("the change cannot be looked through, so it is not pushed", {state_->diff_left_out});
  }
  const TreeBefore& before = state_->before;
  const git::Repository& repository = state_->repository;
  const std::string& parent = state_->taker->tip();
  const std::set<std::string> dirty(before.dirty.begin(), before.dirty.end());
  std::vector<std::string> both;
  for (const git::FileChange& file : after.files) {
    if (dirty.contains(file.path)) both.push_back(file.path);
  }
  if (!both.empty()) {
    fail("the program changed files that had changes of yours, not committed before", both);
  }
  if (!dirty.empty() && parent != before.head) {
    for (const TreeDifference& file : compare_trees(repository, before.head, parent, context)) {
      if (dirty.contains(file.path)) both.push_back(file.path);
    }
    if (!both.empty()) fail("the program committed changes that were yours", both);
  }
  const PlainFolder work_tree(state_->root);
  std::string entries;
  for (const TreeDifference& file : compare_trees(repository, parent, after.tree, context)) {
    if (dirty.contains(file.path)) continue;
    if (!file.is_there() && work_tree.look(file.path)) continue;
    entries += file.new_mode + " " + file.new_id + "\t" + file.path + '\0';
  }
  if (entries.empty()) return parent;
  const git::Repository ours(state_->git, state_->scratch / "commit", {},
                             repository.git_dir() / "objects");
  ours.init({}, context);
  ours.run({"read-tree", parent}, context);
  ours.run({"update-index", "-z", "--index-info"}, context, entries);
  const std::string tree(trim(ours.run({"write-tree"}, context)));
  return std::string(
      trim(ours.run({"commit-tree", tree, "-p", parent, "-F", "-"}, context, message)));
}

std::string LentTree::remote_url() const {
  const auto url = state_->config.remote_url(state_->before.branch, state_->root);
  if (!url) refuse("the clone has no remote to push to", state_->root);
  return *url;
}

}  // namespace necrocode::exec
