#include "necrocode/runner/workspace.hpp"

#include <algorithm>
#include <array>
#include <future>
#include <random>

#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/runner/change_set.hpp"
#include "necrocode/runner/commit_message.hpp"
#include "necrocode/runner/loan.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;

// How often another run of the same task may push between our look and our push.
constexpr int kOvertakenMax = 2;

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

std::string ref_in(const std::map<std::string, std::string>& refs, const std::string& name) {
  const auto found = refs.find(name);
  return found == refs.end() ? std::string() : found->second;
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

Loan loan_of(const Workspace& workspace) {
  const GivenClone& clone = *workspace.given;
  return {clone.head(),
          clone.head_commit(),
          workspace.branch,
          clone.branch_commit(workspace.branch).value_or(""),
          "",
          clone.root_permissions(),
          workspace.users_files};
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
  // With the files' times in the index, only those that differ are written later.
  repository.refresh_index(context);
  require_no_changes(repository, clone, context);
}

}  // namespace

void Workspace::show_git_dir(const fs::path& file) {
  write_file_atomic(file, "gitdir: " + repository.git_dir().string() + "\n");
  read_only = git_folders(repository.git_dir());
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
  workspace.is_new = true;
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
  const auto aside = put_right_after_kill(repository, clone, git_.identity(), context);
  Workspace workspace(std::move(repository), path, task.repo_url, task.branch_name);
  if (aside) {
    workspace.warnings.push_back("an earlier run was killed in slot_path; what it left lies in " +
                                 aside->string());
  }
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

// What goes wrong here shows when the commit is asked for (require_commit), where it is tried
// again.
void WorkspaceManager::fetch_ahead(Workspace& workspace, const CallContext& context) const {
  try {
    workspace.repository.fetch(workspace.remote_url,
                               {"+" + workspace.base_ref + ":refs/necrocode/base"}, context);
    workspace.is_new = false;
  } catch (const std::exception&) {
    return;
  }
}

// Makes sure that a commit of the remote is in our object store.
void WorkspaceManager::require_commit(Workspace& workspace,
                                      const std::map<std::string, std::string>& refs,
                                      const std::string& commit, const CallContext& context) const {
  if (!workspace.is_new && workspace.repository.resolve(commit + "^{commit}", context)) return;
  workspace.is_new = false;
  const auto named =
      std::find_if(refs.begin(), refs.end(), [&](const auto& ref) { return ref.second == commit; });
  const std::string source = named == refs.end() ? commit : named->first;
  with_retries(retries_, context, [&] {
    workspace.repository.fetch(workspace.remote_url, {"+" + source + ":refs/necrocode/" + commit},
                               context);
    return 0;
  });
}

std::string WorkspaceManager::merge_dependencies(Workspace& workspace, const TaskContext& task,
                                                 const std::string& base,
                                                 const std::map<std::string, std::string>& refs,
                                                 const CallContext& context) const {
  if (task.base_commits.empty()) return base;
  std::vector<std::string> commits = {base};
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
  workspace.base_ref = task.base_branch.empty() ? "HEAD" : "refs/heads/" + task.base_branch;
  // A new repository has to fetch the base in any case: while the remote is looked at.
  std::stop_source ahead;
  const std::stop_callback pass_on(context.stop, [&ahead] { ahead.request_stop(); });
  CallContext fetching = context;
  fetching.stop = ahead.get_token();
  std::future<void> fetched;
  if (workspace.is_new) {
    fetched = std::async(std::launch::async, [&] { fetch_ahead(workspace, fetching); });
  }
  std::map<std::string, std::string> refs;
  try {
    refs = look(workspace, context);
  } catch (...) {
    ahead.request_stop();
    throw;
  }
  if (fetched.valid()) fetched.get();
  workspace.remote_head = ref_in(refs, "HEAD");
  workspace.base_tip = ref_in(refs, workspace.base_ref);
  if (workspace.base_tip.empty()) {
    fail(task.base_branch.empty()
             ? "the remote has no default branch; name a base_branch"
             : "the remote has no branch \"" + printable(task.base_branch) + "\"",
         workspace.remote_url);
  }
  require_commit(workspace, refs, workspace.base_tip, context);
  workspace.base_commit = merge_dependencies(workspace, task, workspace.base_tip, refs, context);
  require_own_branch(workspace, task, refs, context);
  if (workspace.remote_tip.empty()) return workspace.base_commit;
  workspace.has_earlier_work = true;
  return workspace.remote_tip;
}

// The remote's branch of that name is this task's own, or is not there yet.
void WorkspaceManager::require_own_branch(Workspace& workspace, const TaskContext& task,
                                          const std::map<std::string, std::string>& refs,
                                          const CallContext& context) const {
  require_room_at_remote(workspace, task, refs);
  workspace.remote_tip = ref_in(refs, "refs/heads/" + task.branch_name);
  if (workspace.remote_tip.empty()) return;
  require_commit(workspace, refs, workspace.remote_tip, context);
  if (is_commit_of(workspace.repository.commit_message(workspace.remote_tip, context), task))
    return;
  fail("the remote has a branch \"" + printable(task.branch_name) +
           "\" that is not this task's; name another",
       workspace.remote_url);
}

void WorkspaceManager::look_at_branch(Workspace& workspace, const TaskContext& task,
                                      const CallContext& context) const {
  const auto refs = look(workspace, context);
  workspace.base_ref = "HEAD";
  workspace.base_tip = ref_in(refs, workspace.base_ref);
  require_own_branch(workspace, task, refs, context);
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
      !is_commit_of(workspace.repository.commit_message(*local, context), task)) {
    fail("slot_path has a branch \"" + printable(task.branch_name) + "\" with other work",
         workspace.root.string());
  }
  if (const auto path = users_file_in_the_way(workspace, clone.head_commit(), start, context)) {
    fail("slot_path has an untracked \"" + printable(*path) + "\" that the base would overwrite",
         workspace.root.string());
  }
}

// One that stands where a file comes with `to`, or where a folder of it must be.
std::optional<std::string> WorkspaceManager::users_file_in_the_way(
    const Workspace& workspace, const std::string& from, const std::string& to,
    const CallContext& context) const {
  for (const git::FileChange& file : workspace.repository.changes(from, to, context)) {
    if (file.status != "A") continue;
    for (std::size_t end = file.path.find('/');; end = file.path.find('/', end + 1)) {
      std::string part = file.path.substr(0, end);
      std::error_code error;
      const fs::file_status status = fs::symlink_status(workspace.root / part, error);
      const bool is_whole = end == std::string::npos;
      const bool is_users_file = workspace.users_files.contains(part) && !fs::is_directory(status);
      if (is_users_file || (is_whole && fs::exists(status))) return part;
      if (is_whole) break;
    }
  }
  return std::nullopt;
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
  if (workspace.given) {
    require_nothing_overwritten(workspace, task, start, context);
    write_loan(*workspace.given, loan_of(workspace));
  }
  try {
    workspace.repository.check_out(task.branch_name, start, false, context);
  } catch (...) {
    hand_back(workspace, false, CallContext().within(std::chrono::seconds{10}));
    throw;
  }
  return workspace;
}

std::optional<std::string> WorkspaceManager::read_at_remote_head(Workspace& workspace,
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

StagedChange WorkspaceManager::staged(const Workspace& workspace,
                                      const CallContext& context) const {
  return {workspace.repository.changes(workspace.base_commit, "", context),
          workspace.repository.diff(workspace.base_commit, "", context)};
}

std::string WorkspaceManager::commit(const Workspace& workspace, const std::string& message,
                                     const CallContext& context) const {
  return workspace.repository.commit(message, context);
}

git::PushOutcome WorkspaceManager::push_once(const Workspace& workspace, const TaskContext& task,
                                             const std::string& commit, PushResult& result,
                                             const CallContext& context) const {
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
    return outcome;
  } catch (const git::GitError& error) {
    info.detail = error.info().detail;
    info.cause = std::current_exception();
    throw PushError("the push did not succeed", info);
  }
}

PushResult WorkspaceManager::push(Workspace& workspace, const TaskContext& task,
                                  const std::string& commit, const CallContext& context) const {
  PushResult result{task.branch_name, commit, -1};
  // Whatever git answered, the remote's own word counts; it also tells a push whose answer was
  // lost.
  for (int overtaken = 0; overtaken <= kOvertakenMax; ++overtaken) {
    push_once(workspace, task, commit, result, context);
    const auto refs = look(workspace, context);
    const std::string tip = ref_in(refs, "refs/heads/" + task.branch_name);
    if (tip == commit) {
      result.base_tip = ref_in(refs, workspace.base_ref);
      workspace.remote_tip = tip;
      return result;
    }
    workspace.remote_tip = tip;
    if (has_all_of(workspace, refs, commit, context)) {
      result.base_tip = workspace.base_tip;  // whoever took it further leads from here
      return result;
    }
    if (tip.empty()) continue;  // somebody removed it
    require_commit(workspace, refs, tip, context);
    if (!is_commit_of(workspace.repository.commit_message(tip, context), task)) break;
  }
  ErrorInfo info;
  info.service = "git";
  info.operation = "push";
  info.target = task.branch_name;
  throw PushError("the remote's branch was changed by somebody else meanwhile", std::move(info));
}

// The commit is part of the branch, on which somebody has gone on, or of the base, into which it
// was merged.
bool WorkspaceManager::has_all_of(Workspace& workspace,
                                  const std::map<std::string, std::string>& refs,
                                  const std::string& commit, const CallContext& context) const {
  for (const std::string& ref : {"refs/heads/" + workspace.branch, workspace.base_ref}) {
    const std::string tip = ref_in(refs, ref);
    if (tip.empty() || tip == workspace.base_tip) continue;
    require_commit(workspace, refs, tip, context);
    if (is_contained(workspace.repository, commit, tip, context)) return true;
  }
  return false;
}

std::optional<std::string> WorkspaceManager::rebase(Workspace& workspace, const TaskContext& task,
                                                    const std::string& commit,
                                                    const std::string& base_tip,
                                                    std::string& reason,
                                                    const CallContext& context) const {
  reason.clear();
  const git::Repository& repository = workspace.repository;
  require_commit(workspace, {{workspace.base_ref, base_tip}}, base_tip, context);
  if (is_contained(repository, commit, base_tip, context)) return std::nullopt;
  if (!is_contained(repository, workspace.base_tip, base_tip, context)) {
    // What was taken out of it would come back with the change.
    reason = "the base was rewritten";
    return std::nullopt;
  }
  const std::string onto = merge_dependencies(workspace, task, base_tip, {}, context);
  std::vector<std::string> conflicts;
  const auto rebased = repository.rebase(commit, onto, repository.commit_message(commit, context),
                                         conflicts, context);
  if (!rebased) {
    reason = "it conflicts in " + join(conflicts, ", ");
    return std::nullopt;
  }
  if (repository.changes(onto, *rebased, context).empty()) return std::nullopt;
  restore(workspace, context);  // what tests left is not the user's
  if (const auto path = workspace.given
                            ? users_file_in_the_way(workspace, commit, *rebased, context)
                            : std::nullopt) {
    reason = "slot_path has an untracked \"" + printable(*path) + "\" that it would overwrite";
    return std::nullopt;
  }
  workspace.base_tip = base_tip;
  return_to(workspace, *rebased, onto, context);
  return rebased;
}

void WorkspaceManager::return_to(Workspace& workspace, const std::string& commit,
                                 const std::string& base_commit, const CallContext& context) const {
  workspace.repository.check_out(workspace.branch, commit, false, context);
  restore(workspace, context);
  workspace.base_commit = base_commit;
}

std::map<std::string, std::string> WorkspaceManager::look(const Workspace& workspace,
                                                          const CallContext& context) const {
  return with_retries(retries_, context,
                      [&] { return git_.remote_refs(workspace.remote_url, context); });
}

std::optional<PushResult> WorkspaceManager::pushed(Workspace& workspace, const TaskContext& task,
                                                   const std::string& commit,
                                                   const CallContext& context) const {
  const auto refs = look(workspace, context);
  if (ref_in(refs, "refs/heads/" + task.branch_name) != commit &&
      !has_all_of(workspace, refs, commit, context)) {
    return std::nullopt;
  }
  return PushResult{task.branch_name, commit, 0, ref_in(refs, workspace.base_ref)};
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
  if (!success) {
    as_found();
    remove_loan(*workspace.given);
    return;
  }
  restore(workspace, context);
  const auto commit = workspace.repository.resolve("HEAD", context);
  if (!commit) fail("the run's commit cannot be found again", workspace.root.string());
  Loan loan = loan_of(workspace);
  loan.commit = *commit;
  write_loan(*workspace.given, loan);
  // When this fails half-way, the loan stays, and the next run goes on from here.
  workspace.given->stand_on(workspace.branch, *commit, workspace.repository.git_dir() / "index",
                            git_.identity());
  fs::permissions(workspace.root, workspace.given->root_permissions());
  remove_loan(*workspace.given);
}

}  // namespace necrocode::runner
