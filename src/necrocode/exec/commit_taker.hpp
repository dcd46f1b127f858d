// CommitTaker: brings what a program committed in its copy of the git directory into the user's
// clone, as from a stranger.
//
// Nothing of the copy is in force while we read it: its loose objects and packs are copied, as
// plain files, into a git directory of ours that knows no other objects but the clone's own; its
// alternates, commit graphs, pack indexes, configuration, grafts and replacements stay behind. From
// there `git fetch` takes the commits with every object checked: index-pack computes each id from
// the content anew, fsck judges it, and nothing may be missing. So a forged object can at most make
// the fetch fail.
//
// Of the clone only the branch is written, then its index: each by a rename under git's own lock,
// after its old value was compared. Killed in between, the objects are whole, the branch is at the
// one commit or the other, and at worst a `.lock` stays, which git names.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "necrocode/exec/lent_tree.hpp"
#include "necrocode/exec/plain_folder.hpp"
#include "necrocode/exec/plain_git.hpp"
#include "necrocode/git/repository.hpp"
#include "necrocode/runner/given_clone.hpp"

namespace necrocode::exec {

class CommitTaker {
 public:
  /// `shown`: the copy; `refs`: what it was given of the clone's; `identity`: NAME <EMAIL>, for the
  /// reflog; `remotes`: their names. `scratch` is a folder of ours; all must outlive this object.
  CommitTaker(const git::Git& git, runner::GivenClone& clone, const PlainFolder& shown,
              std::filesystem::path scratch, Refs refs, std::string identity,
              std::set<std::string> remotes);

  /// See LentTree::take_commits().
  std::optional<TakenCommits> take(const std::string& aside, const CallContext& context);

  /// The last commit that was taken, or where the clone stood.
  const std::string& tip() const { return tip_; }
  /// The clone's refs as they were lent, with what was written since.
  const Refs& refs() const { return refs_; }
  /// Refs of the clone's that the program moved or removed in its copy, and branches whose names
  /// are not taken over: nothing came of it.
  std::vector<std::string> ignored() const;
  /// What was written below the clone's common git directory.
  const std::set<std::string>& written() const { return written_; }

 private:
  struct Tip {
    std::string branch;  ///< empty: HEAD is detached there
    std::string commit;
  };
  /// Of a tip, against where the clone stands.
  struct Added {
    std::size_t count = 0;  ///< commits
    bool rewrites = false;  ///< some of the clone's are missing in it
  };
  std::vector<Tip> tips() const;
  void fetch(const std::vector<Tip>& tips, const CallContext& context);
  bool is_commit(const Tip& tip, const CallContext& context) const;
  Added added(const Tip& tip, const CallContext& context) const;
  std::optional<TakenCommits> place(const Tip& tip, const std::string& aside,
                                    const CallContext& context);
  std::string advance(const Tip& tip, std::size_t count, const CallContext& context);
  std::string bad_name(const std::string& branch) const;
  bool brings_repositories(const Tip& tip, const CallContext& context) const;
  std::string make_branch(const std::string& branch, const std::string& commit,
                          const std::string& what);
  std::optional<std::string> index_after(const std::string& to, const CallContext& context) const;
  void log(const std::string& branch, const std::string& from, const std::string& to,
           const std::string& what, bool checked_out) const;
  git::Repository repository() const;

  const git::Git& git_;
  runner::GivenClone& clone_;
  const PlainFolder& shown_;
  std::filesystem::path scratch_;
  Refs refs_;
  std::string identity_;
  std::set<std::string> remotes_;
  PlainFolder git_dir_, common_;
  std::string start_;  ///< the branch that was checked out, or empty
  std::string start_commit_;
  std::string tip_;
  std::map<std::string, std::string> made_;  ///< branches that we made, and where they are
  std::set<std::string> known_;              ///< commits that are no news
  std::set<std::string> written_;
  std::set<std::string> refused_;  ///< branches of the program's, and why
};

}  // namespace necrocode::exec
