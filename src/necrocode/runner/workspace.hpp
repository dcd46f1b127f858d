// The workspace of one run: a work tree, a git directory of ours beside it, and the task's branch.
// All git of a run happens here. Nothing of the work tree's own `.git` is ever in force (git/).
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "necrocode/git/repository.hpp"
#include "necrocode/pool/client.hpp"
#include "necrocode/process/sandbox.hpp"
#include "necrocode/runner/given_clone.hpp"
#include "necrocode/runner/task_context.hpp"

namespace necrocode::runner {

struct Workspace {
  Workspace(git::Repository the_repository, std::filesystem::path the_root, std::string url,
            std::string branch_name)
      : repository(std::move(the_repository)),
        root(std::move(the_root)),
        remote_url(std::move(url)),
        branch(std::move(branch_name)) {}

  git::Repository repository;
  std::filesystem::path root;
  std::string remote_url;
  std::string branch;
  std::string base_ref;           ///< of the remote: what the task starts from
  std::string base_tip;           ///< what that ref was at
  std::string base_commit;        ///< what the change is measured against
  std::string remote_head;        ///< tip of the remote's default branch; empty: it has none
  std::string remote_tip;         ///< of the branch at the remote, empty when it is not there
  bool is_new = false;            ///< a repository of our own, which has no commit yet
  bool has_earlier_work = false;  ///< the remote tip is this task's own and is checked out
  /// Writes a `.git` file for tests that run git: it names our git directory, which they may read.
  void show_git_dir(const std::filesystem::path& file);

  /// What the sandbox shows of git: never a configuration that may hold the user's credentials.
  std::vector<std::filesystem::path> read_only;
  std::vector<process::SandboxedCommand::Cover> covers;
  /// A slot given by hand, and the user's own paths in it: every file and folder that stood there
  /// before the run and is not tracked, those in nested repositories too.
  std::optional<GivenClone> given;
  std::set<std::string> users_files;
  std::vector<std::string> warnings;  ///< for whoever reads of the run
};

/// What the task depends on cannot be merged; info().detail names the paths.
class DependencyConflict : public WorkspacePreparationError {
 public:
  using WorkspacePreparationError::WorkspacePreparationError;
};

struct PushResult {
  std::string branch;
  std::string commit;
  int retries = 0;
  std::string base_tip{};  ///< of the base's ref, as the remote confirmed the push
};

/// What a commit of the index would change.
struct StagedChange {
  std::vector<git::FileChange> files;
  std::string diff;
};

class WorkspaceManager {
 public:
  WorkspaceManager(const git::Git& git, int network_retries)
      : git_(git), retries_(network_retries) {}

  /// A work tree on the task's branch at its base: the base branch's newest commit, merged with the
  /// commits its dependencies pushed; or at the branch's own earlier work, when the remote has some
  /// with this task's trailer. `scratch`: an empty folder of the run's own.
  /// Throws WorkspacePreparationError: not a clone, local changes in a slot given by hand, no such
  /// base branch, a conflict between dependencies, a foreign branch of that name.
  Workspace prepare(const TaskContext& task, const std::optional<SlotAllocation>& slot,
                    const std::filesystem::path& scratch, const CallContext& context) const;
  /// The file as it is on the remote's default branch, which no task names and no run writes to;
  /// nothing when there is none, or it is no file of at most 1 MiB.
  std::optional<std::string> read_at_remote_head(Workspace& workspace, const std::string& path,
                                                 const CallContext& context) const;
  /// Back from earlier work to the base.
  void reset_to_base(Workspace& workspace, const CallContext& context) const;
  /// Stages these paths and nothing else; the index is what will be committed.
  void stage(const Workspace& workspace, const std::vector<std::string>& paths,
             const CallContext& context) const;
  /// The work tree exactly as it is staged: what tests changed or left behind is gone. In a given
  /// slot the user's own untracked files stay.
  void restore(const Workspace& workspace, const CallContext& context) const;
  /// The index against the base.
  StagedChange staged(const Workspace& workspace, const CallContext& context) const;
  std::string commit(const Workspace& workspace, const std::string& message,
                     const CallContext& context) const;
  /// Before a push from a repository that was not prepared here: whether the branch may be pushed
  /// to. Throws as prepare() of a branch that is not this task's.
  void look_at_branch(Workspace& workspace, const TaskContext& task,
                      const CallContext& context) const;
  /// Returns when the remote has confirmed. A lost answer is looked up, not repeated blindly.
  /// A tip that another run of this task pushed meanwhile is replaced.
  /// Throws PushError when the remote refuses or the branch is no longer this task's.
  PushResult push(Workspace& workspace, const TaskContext& task, const std::string& commit,
                  const CallContext& context) const;
  /// The change of `commit` on `base_tip`, to which the base's ref moved, merged with the task's
  /// dependencies; checked out. The new commit; or nothing, and why not in `reason` (empty: the
  /// base has the change already), with the workspace as it was.
  std::optional<std::string> rebase(Workspace& workspace, const TaskContext& task,
                                    const std::string& commit, const std::string& base_tip,
                                    std::string& reason, const CallContext& context) const;
  /// Back on a commit that the branch was at before, made on `base_commit`.
  void return_to(Workspace& workspace, const std::string& commit, const std::string& base_commit,
                 const CallContext& context) const;
  /// What the remote has of a push that may have happened: nothing when the commit is neither the
  /// branch's tip nor part of it or of the base.
  std::optional<PushResult> pushed(Workspace& workspace, const TaskContext& task,
                                   const std::string& commit, const CallContext& context) const;
  /// Ends the use of a slot given by hand: on success it stands on the branch, else as it was
  /// found.
  void hand_back(const Workspace& workspace, bool success, const CallContext& context) const;

 private:
  Workspace open(const TaskContext& task, const std::optional<SlotAllocation>& slot,
                 const std::filesystem::path& scratch, const CallContext& context) const;
  Workspace open_given(const TaskContext& task, const std::filesystem::path& path,
                       const std::filesystem::path& scratch, const CallContext& context) const;
  std::string choose_start(Workspace& workspace, const TaskContext& task,
                           const CallContext& context) const;
  void require_own_branch(Workspace& workspace, const TaskContext& task,
                          const std::map<std::string, std::string>& refs,
                          const CallContext& context) const;
  void fetch_ahead(Workspace& workspace, const CallContext& context) const;
  void require_commit(Workspace& workspace, const std::map<std::string, std::string>& refs,
                      const std::string& commit, const CallContext& context) const;
  std::string merge_dependencies(Workspace& workspace, const TaskContext& task,
                                 const std::string& base,
                                 const std::map<std::string, std::string>& refs,
                                 const CallContext& context) const;
  std::map<std::string, std::string> look(const Workspace& workspace,
                                          const CallContext& context) const;
  bool has_all_of(Workspace& workspace, const std::map<std::string, std::string>& refs,
                  const std::string& commit, const CallContext& context) const;
  git::PushOutcome push_once(const Workspace& workspace, const TaskContext& task,
                             const std::string& commit, PushResult& result,
                             const CallContext& context) const;
  std::optional<std::string> users_file_in_the_way(const Workspace& workspace,
                                                   const std::string& from, const std::string& to,
                                                   const CallContext& context) const;
  void require_nothing_overwritten(const Workspace& workspace, const TaskContext& task,
                                   const std::string& start, const CallContext& context) const;
  const git::Git& git_;
  int retries_;
};

}  // namespace necrocode::runner
