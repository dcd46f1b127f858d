#include "necrocode/runner/workspace.hpp"

#include <algorithm>
#include <array>
#include <random>

#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/runner/change_set.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTrailer = "Necrocode-Task: ";

std::string trailer_of(const TaskContext& task) {
  return std::string(kTrailer) + task.task_id.str();
}

// Only the last paragraph counts: text of a task's description cannot stand for another task.
bool has_trailer(std::string_view message, const TaskContext& task) {
  message = trim(message);
  const std::size_t paragraph = message.rfind("\n\n");
  if (paragraph != std::string_view::npos) message = message.substr(paragraph + 2);
  for (const std::string_view line : split(message, '\n')) {
    if (trim(line) == trailer_of(task)) return true;
  }
  return false;
}

// What git says when trying again cannot help.
bool is_permanent(const git::GitError& error) {
  constexpr std::array<std::string_view, 10> kSigns = {"Authentication failed",
                                                       "Permission denied",
                                                       "not found",
                                                       "does not appear to be a git",
                                                       "could not read Username",
                                                       "does not exist",
                                                       "Repository not exported",
                                                       "couldn't find remote ref",
                                                       "mismatched algorithms",
                                                       "dubious ownership"};
  return std::any_of(kSigns.begin(), kSigns.end(), [&](std::string_view sign) {
    return error.info().detail.find(sign) != std::string::npos;
  });
}

// Runs a git verb that talks to the remote, again after a passing failure (0.5, 1, 2, … s,
// jittered).
template <class Verb>
auto with_retries(int retries, const CallContext& context, Verb verb) {
  thread_local std::minstd_rand generator{std::random_device{}()};
  for (int attempt = 0;; ++attempt) {
    try {
      return verb();
    } catch (const git::GitError& error) {
      if (attempt >= retries || is_permanent(error) || context.cancelled()) throw;
      const double seconds =
          std::uniform_real_distribution<>(0.25, 0.5)(generator) * (1 << attempt);
      const auto delay = std::chrono::milliseconds{static_cast<int>(seconds * 1000)};
      if (context.remaining() <= delay) throw;
      log::warn("git failed, trying again",
                {{"operation", error.info().operation}, {"detail", error.info().detail}});
      if (!real_clock().sleep_for(delay, context.stop)) throw;
    }
  }
}

[[noreturn]] void fail(const std::string& summary, const std::string& target,
                       const std::string& detail = {}) {
  ErrorInfo info;
  info.operation = "prepare";
  info.target = target;
  info.detail = detail;
  throw WorkspacePreparationError(summary, std::move(info));
}

// A git directory of ours and the further object folders that it reads, for tests that run git.
std::vector<fs::path> git_folders(const fs::path& git_dir) {
  std::vector<fs::path> paths = {git_dir};
  std::error_code error;
  const fs::path alternates = git_dir / "objects/info/alternates";
  if (!fs::exists(alternates, error)) return paths;
  const std::string text = read_file(alternates, 64 * limits::kKiB);
  for (const std::string_view line : split(text, '\n')) {
    if (line.starts_with('/')) paths.emplace_back(std::string(line));
  }
  return paths;
}

// Every path below `root`, folders too, relative, in order; not the `.git` at the top, and through
// no link.
std::set<std::string> walk(const fs::path& root) {
  std::set<std::string> paths;
  std::error_code error;
  fs::recursive_directory_iterator entries(root, fs::directory_options::skip_permission_denied,
                                           error);
  for (; !error && entries != fs::recursive_directory_iterator(); entries.increment(error)) {
    const std::string path = entries->path().lexically_relative(root).generic_string();
    if (path == ".git") {
      entries.disable_recursion_pending();
    } else {
      paths.insert(path);
    }
  }
  if (error) fail("slot_path cannot be looked through", root.string(), error.message());
  return paths;
}

bool is_contained(const git::Repository& repository, const std::string& commit,
                  const std::string& in, const CallContext& context) {
  try {
    return trim(repository.run({"merge-base", commit, in}, context)) == commit;
  } catch (const git::GitError&) {
    return false;  // no common history
  }
}

// `feature` and `feature/x` cannot both be branches: told before a model is paid for the work.
void require_room_at_remote(const Workspace& workspace, const TaskContext& task,
                            const std::map<std::string, std::string>& refs) {
  const std::string wanted = "refs/heads/" + task.branch_name + "/";
  for (const auto& [name, commit] : refs) {
    const bool above = wanted.starts_with(name + "/") && wanted != name + "/";
    if (!above && !name.starts_with(wanted)) continue;
    fail("the remote has a branch \"" + printable(name.substr(std::string("refs/heads/").size())) +
             "\", so there can be no \"" + printable(task.branch_name) +
             "\"; name another branch_name",
         workspace.remote_url);
  }
}

bool is_inside(const fs::path& path, const fs::path& folder) {
  const std::string inner = fs::weakly_canonical(path).string() + "/";
  return inner.starts_with(fs::weakly_canonical(folder).string() + "/");
}

std::string origin_of(const git::Git& git, const GivenClone& clone, const CallContext& context) {
  std::string url;
  try {
    url = trim(git.run({"config", "--file", (clone.common_dir() / "config").string(),
                        "--no-includes", "--get", "remote.origin.url"},
                       context));
  } catch (const git::GitError&) {
    fail("slot_path has no remote \"origin\" to push to; give a repo_url", clone.root().string());
  }
  try {
    git::check_remote_url(url);
  } catch (const SecurityError& error) {
    fail("slot_path's remote \"origin\" cannot be used; give a repo_url", clone.root().string(),
         error.summary());
  }
  return url;
}

void require_no_changes(const git::Repository& repository, const GivenClone& clone,
                        const CallContext& context) {
  const std::vector<std::string> changed = repository.status(false, context);
  if (changed.empty()) return;
  fail(clone.looks_sparse()
           ? "slot_path does not hold all files of its commit; a sparse checkout cannot be lent"
           : "slot_path has uncommitted changes; commit or stash them first",
       clone.root().string(), shorten(join(changed, ", "), 300));
}

// Nothing staged in the clone's own index, and nothing changed against one of ours, which no flag
// in the clone's index can hide.
void require_clean(const git::Repository& repository, const GivenClone& clone,
                   const CallContext& context) {
  repository.run({"update-ref", "--no-deref", "HEAD", clone.head_commit()}, context);
  std::error_code error;
  if (fs::is_regular_file(clone.git_dir() / "index", error)) {
    write_file_atomic(repository.git_dir() / "index",
                      read_file(clone.git_dir() / "index", limits::kGiB));
    require_no_changes(repository, clone, context);
  }
  repository.run({"read-tree", clone.head_commit()}, context);
  try {
    // With the files' times in the index, only those that differ are written later.
    repository.run({"update-index", "-q", "--refresh"}, context);
  } catch (const git::GitError&) {
    // Some file differs: told right below, by name.
    require_no_changes(repository, clone, context);
    throw;
  }
  require_no_changes(repository, clone, context);
}

}  // namespace

void Workspace::show_git_dir(const fs::path& file) {
  write_file_atomic(file, "gitdir: " + repository.git_dir().string() + "\n");
  read_only = git_folders(repository.git_dir());
}

std::string commit_message(const TaskContext& task) {
  std::string message = "feat(task-" + std::string(task.task_id.number()) +
                        "): " + shorten(printable(task.title), 72) + "\n";
  if (!task.description.empty()) message += "\n" + task.description + "\n";
  return message + "\n" + trailer_of(task) + "\n";
}

Workspace WorkspaceManager::open(const TaskContext& task, const std::optional<SlotAllocation>& slot,
                                 const fs::path& scratch, const CallContext& context) const {
  if (slot && !slot->git_dir.empty()) {
    git::Repository repository(git_, slot->git_dir, slot->slot_path);
    Workspace workspace(std::move(repository), slot->slot_path, slot->repo_url, task.branch_name);
    workspace.read_only = git_folders(slot->git_dir);
    return workspace;
  }
  if (slot) return open_given(task, slot->slot_path, scratch, context);
  if (!task.slot_path.empty()) return open_given(task, task.slot_path, scratch, context);
  const fs::path root = scratch / "workspace";
  fs::create_directories(root);
  git::Repository repository(git_, scratch / "git", root);
  repository.init({}, context);
  Workspace workspace(std::move(repository), root, task.repo_url, task.branch_name);
  workspace.show_git_dir(root / ".git");
  return workspace;
}

// A clone that somebody else made. Its objects are shared; its config, hooks and index are not
// used. The tests see our git directory in place of its own.
Workspace WorkspaceManager::open_given(const TaskContext& task, const fs::path& path,
                                       const fs::path& scratch, const CallContext& context) const {
  if (is_inside(scratch, path)) {
    fail("the run's own folder (--out or the data folder) lies inside slot_path; name another",
         path.string());
  }
  GivenClone clone(path);
  const fs::path objects = clone.common_dir() / "objects";
  git::Repository repository(git_, scratch / "git", path, objects);
  repository.init({}, context);
  Workspace workspace(std::move(repository), path, task.repo_url, task.branch_name);
  if (const std::string boundary = clone.shallow_boundary(); !boundary.empty()) {
    write_file_atomic(scratch / "git/shallow", boundary);
  }
  if (clone.has_git_folder()) {
    workspace.covers = {{path / ".git", scratch / "git"}, {path / ".git/objects", objects}};
  } else {
    write_file_atomic(scratch / "git/objects/info/alternates", objects.string() + "\n");
    workspace.show_git_dir(scratch / "dot-git");
    workspace.covers = {{path / ".git", scratch / "dot-git"}};
  }
  if (workspace.remote_url.empty()) workspace.remote_url = origin_of(git_, clone, context);
  workspace.given = std::move(clone);
  return workspace;
}

// Makes sure that a commit of the remote is in our object store.
void WorkspaceManager::require_commit(const Workspace& workspace,
                                      const std::map<std::string, std::string>& refs,
                                      const std::string& commit, const CallContext& context) const {
  if (workspace.repository.resolve(commit + "^{commit}", context)) return;
  const auto named =
      std::find_if(refs.begin(), refs.end(), [&](const auto& ref) { return ref.second == commit; });
  const std::string source = named == refs.end() ? commit : named->first;
  with_retries(retries_, context, [&] {
    workspace.repository.fetch(workspace.remote_url, {"+" + source + ":refs/necrocode/" + commit},
                               context);
    return 0;
  });
}

std::string WorkspaceManager::merge_dependencies(const Workspace& workspace,
                                                 const TaskContext& task,
                                                 const std::map<std::string, std::string>& refs,
                                                 const CallContext& context) const {
  if (task.base_commits.empty()) return workspace.base_commit;
  std::vector<std::string> commits = {workspace.base_commit};
  for (const std::string& parent : task.base_commits) {
    require_commit(workspace, refs, parent, context);
    commits.push_back(parent);
  }
  std::vector<std::string> conflicts;
  const auto merged = workspace.repository.merge(
      commits, "Merge the work that " + task.task_id.str() + " depends on\n", conflicts, context);
  if (!merged) {
    ErrorInfo info;
    info.operation = "prepare";
    info.target = task.task_id.str();
    info.detail = join(conflicts, ", ");
    throw DependencyConflict("the tasks it depends on conflict with each other", std::move(info));
  }
  return *merged;
}

// The base, and where the branch starts: at the base, or at this task's own earlier work.
std::string WorkspaceManager::choose_start(Workspace& workspace, const TaskContext& task,
                                           const CallContext& context) const {
  const auto refs = with_retries(retries_, context,
                                 [&] { return git_.remote_refs(workspace.remote_url, context); });
  const auto ref = [&refs](const std::string& name) {
    const auto found = refs.find(name);
    return found == refs.end() ? std::string() : found->second;
  };
  workspace.remote_head = ref("HEAD");
  workspace.base_commit = ref(task.base_branch.empty() ? "HEAD" : "refs/heads/" + task.base_branch);
  if (workspace.base_commit.empty()) {
    fail(task.base_branch.empty()
             ? "the remote has no default branch; name a base_branch"
             : "the remote has no branch \"" + printable(task.base_branch) + "\"",
         workspace.remote_url);
  }
  require_room_at_remote(workspace, task, refs);
  require_commit(workspace, refs, workspace.base_commit, context);
  workspace.base_commit = merge_dependencies(workspace, task, refs, context);
  workspace.remote_tip = ref("refs/heads/" + task.branch_name);
  if (workspace.remote_tip.empty()) return workspace.base_commit;
  require_commit(workspace, refs, workspace.remote_tip, context);
  if (!has_trailer(workspace.repository.commit_message(workspace.remote_tip, context), task)) {
    fail("the remote has a branch \"" + printable(task.branch_name) + "\" that is not this task's",
         workspace.remote_url);
  }
  workspace.has_earlier_work = true;
  return workspace.remote_tip;
}

// In a slot given by hand: no untracked file and no branch of the user's may be in the way.
void WorkspaceManager::require_nothing_overwritten(const Workspace& workspace,
                                                   const TaskContext& task,
                                                   const std::string& start,
                                                   const CallContext& context) const {
  const GivenClone& clone = *workspace.given;
  clone.require_room_for(task.branch_name);
  const auto local = clone.branch_commit(task.branch_name);
  if (local && !is_contained(workspace.repository, *local, start, context) &&
      !has_trailer(workspace.repository.commit_message(*local, context), task)) {
    fail("slot_path has a branch \"" + printable(task.branch_name) + "\" with other work",
         workspace.root.string());
  }
  for (const git::FileChange& file :
       workspace.repository.changes(clone.head_commit(), start, context)) {
    if (file.status != "A") continue;
    // The file itself, or a user's file where a folder must be.
    for (std::size_t end = file.path.find('/');; end = file.path.find('/', end + 1)) {
      const std::string part = file.path.substr(0, end);
      std::error_code error;
      const fs::file_status status = fs::symlink_status(workspace.root / part, error);
      const bool is_whole = end == std::string::npos;
      const bool is_users_file = workspace.users_files.contains(part) && !fs::is_directory(status);
      if (is_users_file || (is_whole && fs::exists(status))) {
        fail("slot_path has an untracked \"" + printable(part) + "\" that the base would overwrite",
             workspace.root.string());
      }
      if (is_whole) break;
    }
  }
}

Workspace WorkspaceManager::prepare(const TaskContext& task,
                                    const std::optional<SlotAllocation>& slot,
                                    const fs::path& scratch, const CallContext& context) const {
  Workspace workspace = open(task, slot, scratch, context);
  if (workspace.given) {
    require_clean(workspace.repository, *workspace.given, context);
    workspace.users_files = walk(workspace.root);
    for (const std::string& path : workspace.repository.tracked_files(context)) {
      workspace.users_files.erase(path);
    }
  }
  const std::string start = choose_start(workspace, task, context);
  if (workspace.given) require_nothing_overwritten(workspace, task, start, context);
  try {
    workspace.repository.check_out(task.branch_name, start, false, context);
  } catch (...) {
    hand_back(workspace, false, CallContext().within(std::chrono::seconds{10}));
    throw;
  }
  return workspace;
}

std::optional<std::string> WorkspaceManager::read_at_remote_head(const Workspace& workspace,
                                                                 const std::string& path,
                                                                 const CallContext& context) const {
  if (workspace.remote_head.empty()) return std::nullopt;
  require_commit(workspace, {{"HEAD", workspace.remote_head}}, workspace.remote_head, context);
  const std::string object = workspace.remote_head + ":" + path;
  try {
    const auto size =
        parse_uint(trim(workspace.repository.run({"cat-file", "-s", object}, context)));
    if (!size || *size > limits::kMiB) return std::nullopt;
    return workspace.repository.run({"cat-file", "blob", object}, context);
  } catch (const git::GitError&) {
    return std::nullopt;  // no such file there, or a folder
  }
}

void WorkspaceManager::reset_to_base(Workspace& workspace, const CallContext& context) const {
  workspace.repository.check_out(workspace.branch, workspace.base_commit, false, context);
  restore(workspace, context);
  workspace.has_earlier_work = false;
}

void WorkspaceManager::stage(const Workspace& workspace, const std::vector<std::string>& paths,
                             const CallContext& context) const {
  workspace.repository.stage(paths, context);
}

void WorkspaceManager::restore(const Workspace& workspace, const CallContext& context) const {
  workspace.repository.restore_from_index(context, workspace.users_files);
}

std::string WorkspaceManager::diff(const Workspace& workspace, const CallContext& context) const {
  return workspace.repository.diff(workspace.base_commit, "", context);
}

std::vector<git::FileChange> WorkspaceManager::changes(const Workspace& workspace,
                                                       const CallContext& context) const {
  return workspace.repository.changes(workspace.base_commit, "", context);
}

std::string WorkspaceManager::commit(const Workspace& workspace, const std::string& message,
                                     const CallContext& context) const {
  return workspace.repository.commit(message, context);
}

PushResult WorkspaceManager::push(const Workspace& workspace, const TaskContext& task,
                                  const std::string& commit, const CallContext& context) const {
  PushResult result{task.branch_name, commit, -1};
  ErrorInfo info;
  info.service = "git";
  info.operation = "push";
  info.target = task.branch_name;
  try {
    const git::PushOutcome outcome = with_retries(retries_, context, [&] {
      ++result.retries;
      return workspace.repository.push(workspace.remote_url, commit, task.branch_name,
                                       workspace.remote_tip, context, &info.detail);
    });
    if (outcome == git::PushOutcome::kRejected) {
      throw PushError("the remote refused the push", info);
    }
    info.detail.clear();
  } catch (const git::GitError& error) {
    info.detail = error.info().detail;
    info.cause = std::current_exception();
    throw PushError("the push did not succeed", info);
  }
  // Whatever git answered, the remote's own word counts; it also tells a push whose answer was
  // lost.
  if (!pushed(workspace, task, commit, context)) {
    throw PushError("the remote's branch was changed by somebody else meanwhile", info);
  }
  return result;
}

std::optional<PushResult> WorkspaceManager::pushed(const Workspace& workspace,
                                                   const TaskContext& task,
                                                   const std::string& commit,
                                                   const CallContext& context) const {
  const auto refs = with_retries(retries_, context,
                                 [&] { return git_.remote_refs(workspace.remote_url, context); });
  const auto tip = refs.find("refs/heads/" + task.branch_name);
  if (tip == refs.end() || tip->second != commit) return std::nullopt;
  return PushResult{task.branch_name, commit, 0};
}

void WorkspaceManager::hand_back(const Workspace& workspace, bool success,
                                 const CallContext& context) const {
  if (!workspace.given) return;
  const auto as_found = [&] {
    fs::permissions(workspace.root, fs::perms::owner_all, fs::perm_options::add);
    workspace.repository.check_out(workspace.branch, workspace.given->head_commit(), false,
                                   context);
    restore(workspace, context);
    fs::permissions(workspace.root, workspace.given->root_permissions());
  };
  if (!success) return as_found();
  restore(workspace, context);
  try {
    const auto commit = workspace.repository.resolve("HEAD", context);
    if (!commit) fail("the run's commit cannot be found again", workspace.root.string());
    workspace.given->stand_on(workspace.branch, *commit, workspace.repository.git_dir() / "index",
                              git_.identity());
    fs::permissions(workspace.root, workspace.given->root_permissions());
  } catch (...) {
    as_found();
    throw;
  }
}

}  // namespace necrocode::runner
