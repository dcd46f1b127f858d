// git, run as a trusted child and hardened: nothing that a work tree, a model or an earlier user
// left takes effect in a command of ours. What keeps that true:
//  - the git directory is ours, outside the work tree, its config written by us; a `.git` in the
//  work
//    tree is never used as one;
//  - no system, global or work-tree config, no hooks, no fsmonitor, no external diff, textconv,
//  pager,
//    editor, signing or credential helper but ours; GIT_* and the rest of our environment not
//    inherited;
//  - content filters and attributes cannot name a program, since no config of ours defines one;
//  - only full object ids are checked out; "--" and "--end-of-options" before what others named;
//  - before each command the git directory's config is compared with what we write there: a line
//  that
//    is not ours, or a `commondir`, ends the command with SecurityError.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/call_context.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/masking.hpp"
#include "necrocode/base/secret.hpp"
#include "necrocode/process/supervisor.hpp"

namespace necrocode::git {

/// A git command failed: info().operation is its verb, status the exit code, detail its stderr,
/// masked and bounded.
class GitError : public WorkspacePreparationError {
 public:
  using WorkspacePreparationError::WorkspacePreparationError;
};

/// A full object id: 40 or 64 lower-case hex digits.
bool is_object_id(std::string_view text);
/// What `git check-ref-format --branch` would take, and not beginning with '-' (checked here, no
/// child).
bool is_branch_name(std::string_view text);
/// https://, http:// to loopback, ssh://, git@host:path, file:// or an absolute path; throws
/// SecurityError (without the URL when it holds a password) for ext::, other transports, a leading
/// '-', credentials, control characters, an ssh host or user that begins with '-'.
void check_remote_url(const std::string& url);

struct GitOptions {
  Secret token;  ///< for https: handed to git by its own credential protocol, never in a URL or
                 ///< argument
  std::string author_name = "necrocode";
  std::string author_email = "necrocode@localhost";
  std::chrono::seconds command_timeout{600};
};

struct FileChange {
  std::string status;  ///< A, M, D, T
  std::string path;
  std::optional<std::int64_t> added;  ///< lines; nothing for binary files
  std::optional<std::int64_t> removed;
};

enum class PushOutcome {
  kPushed,
  kUpToDate,
  kStale,     ///< the remote's tip is not the expected one; nothing was changed
  kRejected,  ///< by a rule of the remote; nothing was changed
};

/// Runs git. Thread-safe; one for the process.
class Git {
 public:
  Git(process::Supervisor& supervisor, GitOptions options);

  /// Runs `git ARGS` with the hardening, no repository. Throws GitError unless it exits with 0.
  std::string run(const std::vector<std::string>& args, const CallContext& context) const;
  /// The remote's branches and HEAD: name ("refs/heads/main", "HEAD") → object id.
  std::map<std::string, std::string> remote_refs(const std::string& url,
                                                 const CallContext& context) const;
  /// The branch that the remote's HEAD names, or nothing.
  std::optional<std::string> remote_head_branch(const std::string& url,
                                                const CallContext& context) const;

  const GitOptions& options() const { return options_; }
  /// NAME <EMAIL>, of the author and committer.
  std::string identity() const { return options_.author_name + " <" + options_.author_email + ">"; }

 private:
  friend class Repository;
  struct Invocation;
  process::CommandResult execute(const Invocation& invocation, const CallContext& context) const;
  [[noreturn]] void fail(const Invocation& invocation, const process::CommandResult& result) const;
  std::string output(const Invocation& invocation, const CallContext& context) const;
  process::Supervisor& supervisor_;
  GitOptions options_;
  Masker masker_;
  std::vector<std::string> env_;
  std::vector<std::string> ssh_env_, http_env_;  ///< further variables for remotes of that kind
};

/// One git directory of ours, with or without a work tree. Not thread-safe for writing verbs.
class Repository {
 public:
  /// `work_tree` empty: bare. `object_directory`: where objects are, when not in the git directory.
  Repository(const Git& git, std::filesystem::path git_dir, std::filesystem::path work_tree = {},
             std::filesystem::path object_directory = {});

  /// Makes an empty git directory with our config (no child); `alternates`: further object folders
  /// to read from. `origin`: the URL of the remote "origin", for other programs that run git there.
  void init(const std::vector<std::filesystem::path>& alternates, const CallContext& context,
            const std::string& origin = {}) const;

  /// Fetches refspecs from `url`: no tags, no submodules. A destination must be below refs/remotes/
  /// or refs/necrocode/ (SecurityError), and is overwritten; a bare object id needs none. `prune`
  /// removes what matches a destination and is gone from the remote.
  void fetch(const std::string& url, const std::vector<std::string>& refspecs,
             const CallContext& context, bool prune = false) const;
  /// The full id of a commit-ish, or nothing.
  std::optional<std::string> resolve(std::string_view revision, const CallContext& context) const;
  /// HEAD on `branch` at `commit`, index and work tree exactly as in it: tracked files restored;
  /// with `clean` also all untracked and ignored files removed, nested repositories included, and
  /// every file written anew whose lstat differs to the nanosecond from the index (which must be
  /// ours).
  void check_out(const std::string& branch, const std::string& commit, bool clean,
                 const CallContext& context) const;
  /// Stages all changes of the work tree and returns them against HEAD. Ignored files stay out, and
  /// so do folders with a `.git` of their own: a repository made by a test is no change of this
  /// one.
  std::vector<FileChange> stage_all(const CallContext& context) const;
  /// Stages exactly these paths as the work tree has them, deleted ones as deleted, ignored ones
  /// too.
  void stage(const std::vector<std::string>& paths, const CallContext& context) const;
  /// The work tree exactly as the index has it, untracked and ignored files removed, but for those
  /// in `keep`; `aside`: moved there instead of removed (see sweep_tree for both).
  void restore_from_index(const CallContext& context, const std::set<std::string>& keep = {},
                          const std::filesystem::path& aside = {}) const;
  /// Writes into the index what lstat says of each file that is as the index has it.
  void refresh_index(const CallContext& context) const;
  /// Commits the index; the new commit's id.
  std::string commit(const std::string& message, const CallContext& context) const;
  /// A commit with these commits merged, in order, as its parents (less those that others contain;
  /// when one is left, that one), or nothing with the conflicting paths in `conflicts`.
  std::optional<std::string> merge(const std::vector<std::string>& commits,
                                   const std::string& message, std::vector<std::string>& conflicts,
                                   const CallContext& context) const;
  /// The change that `commit` makes to its parent, as a commit on `onto` with this message; or
  /// nothing, with the conflicting paths in `conflicts`.
  std::optional<std::string> rebase(const std::string& commit, const std::string& onto,
                                    const std::string& message, std::vector<std::string>& conflicts,
                                    const CallContext& context) const;
  /// The unified diff between two commits (or to the index when `to` is empty), binary-safe.
  std::string diff(const std::string& from, const std::string& to,
                   const CallContext& context) const;
  std::vector<FileChange> changes(const std::string& from, const std::string& to,
                                  const CallContext& context) const;
  std::string commit_message(const std::string& commit, const CallContext& context) const;
  /// Tracked paths by our index, ordered by their bytes.
  std::vector<std::string> tracked_files(const CallContext& context) const;
  /// Changed, staged or (with `untracked`) untracked paths, as `git status --porcelain` tells them:
  /// two letters, a space, the path. Never looks into submodules.
  std::vector<std::string> status(bool untracked, const CallContext& context) const;

  /// Pushes `commit` to `refs/heads/branch` of `url`. `expected_tip` is the id that the remote
  /// branch must have now, empty for "must not exist": any other tip is kStale. Never an
  /// unconditional force. Throws GitError when the outcome is unknown (connection, authentication).
  /// `remote_words`, when given, gets what the remote said of a refusal, masked and bounded.
  PushOutcome push(const std::string& url, const std::string& commit, const std::string& branch,
                   const std::string& expected_tip, const CallContext& context,
                   std::string* remote_words = nullptr) const;

  /// Any other verb; the same hardening; `input` is its stdin. Throws GitError unless it exits with
  /// 0.
  std::string run(const std::vector<std::string>& args, const CallContext& context,
                  const std::string& input = {}) const;

  const std::filesystem::path& git_dir() const { return git_dir_; }
  const std::filesystem::path& work_tree() const { return work_tree_; }

 private:
  Git::Invocation prepare(std::vector<std::string> args) const;
  std::optional<std::string> merge_trees(const std::string& ours, const std::string& theirs,
                                         std::vector<std::string>& conflicts,
                                         const CallContext& context) const;
  std::string record(const std::string& tree, const std::vector<std::string>& parents,
                     const std::string& message, const CallContext& context) const;
  std::vector<FileChange> changes_of(std::vector<std::string> args,
                                     const CallContext& context) const;
  std::string head_commit() const;
  const Git& git_;
  std::filesystem::path git_dir_;
  std::filesystem::path work_tree_;
  std::filesystem::path object_directory_;
};

}  // namespace necrocode::git
