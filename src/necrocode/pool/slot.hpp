// One slot on disk: a work tree and its git directory, made, handed out, taken back, cleaned,
// proven. Knows paths and git; knows nothing of leases' times, of waiting, or of the database.
//
//   {pool}/store.git                  objects and remote branches, shared, fetched by one at a time
//   {pool}/slots/{n}/clean.index      the index of the last proven state, out of the holders' way
//   {pool}/slots/{n}/ready/{tree,git} proven, waiting for its next holder
//   {pool}/slots/{n}/dirty/{tree,git} taken back, or half made
//   {pool}/work/{slot_id}/{tree,git}  leased: every lease has a path of its own
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "necrocode/git/repository.hpp"

namespace necrocode::pool {

/// What was found when a slot was last proven clean.
struct CleanProof {
  std::string commit;
  std::string branch;
  std::size_t files = 0;
  std::uint64_t disk_bytes = 0;  ///< of its files; objects are the store's
  SystemTime proven_at;
};

/// Not thread-safe: one owner at a time. Every call throws StorageError when the disk refuses.
class Slot {
 public:
  Slot(const git::Git& git, std::filesystem::path pool_folder, int number);

  /// From whatever is there (or nothing) to a proven work tree at `commit`, on `branch`, with a git
  /// directory as new: nothing of an earlier holder is left, and nothing of it has run. Processes
  /// that were started in the lease and still hold the slot are killed. Throws GitError when that
  /// cannot be proven.
  CleanProof prepare(const std::string& branch, const std::string& commit,
                     const std::string& origin, const CallContext& context);
  /// Moves the proven slot to the lease's own path.
  void hand_out(const std::string& slot_id);
  /// Moves it away from there; the lease's path is gone at once. False when nothing was there.
  bool take_back(const std::string& slot_id);
  /// Removes all of it, for a fresh beginning. Throws StorageError when something cannot be
  /// removed.
  void discard();

  static std::filesystem::path tree_of(const std::filesystem::path& pool_folder,
                                       const std::string& slot_id);
  static std::filesystem::path git_dir_of(const std::filesystem::path& pool_folder,
                                          const std::string& slot_id);

 private:
  void clear_strangers();
  git::Repository renew_git_directory(const std::string& origin, const CallContext& context);
  CleanProof prove(const git::Repository& repository);

  const git::Git& git_;
  std::filesystem::path pool_folder_;
  std::filesystem::path folder_;
  std::optional<std::uint64_t> lease_begin_;  ///< of the last lease; nothing after a restart
};

}  // namespace necrocode::pool
