// Loan: what a run writes down in a clone that it was lent, before it changes anything there. A run
// that is killed leaves the note; the next one puts the clone right by it, and loses nothing: what
// it cannot account for is moved aside, never removed.
#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <string>

#include "necrocode/git/repository.hpp"
#include "necrocode/runner/given_clone.hpp"

namespace necrocode::runner {

struct Loan {
  std::string head;         ///< where the clone stood: its HEAD as it was
  std::string head_commit;  ///< the commit there
  std::string branch;       ///< the task's
  std::string branch_tip;   ///< of it in the clone; empty: there was none
  /// Set when the run gives the clone back on this commit of the branch: from then on the way is
  /// forward. Empty before: back.
  std::string commit;
  std::filesystem::perms root_permissions{};
  std::set<std::string> users_files;  ///< untracked paths that were there before the run
};

/// In the clone's git directory, which no test and no model sees. Durable on return.
void write_loan(const GivenClone& clone, const Loan& loan);
void remove_loan(const GivenClone& clone);

/// Puts a clone right that a killed run left: as it was lent, or on the branch when the run was
/// about to give it back so. `repository`: ours over the clone's work tree and objects; its index
/// is overwritten. The clone is looked at anew. The folder where what stood in the way lies now,
/// the clone's own index as `.git-index` among it when that had to be written anew; nothing when
/// there was no note, or its clone has moved on since.
std::optional<std::filesystem::path> put_right_after_kill(const git::Repository& repository,
                                                          GivenClone& clone,
                                                          const std::string& identity,
                                                          const CallContext& context);

}  // namespace necrocode::runner
