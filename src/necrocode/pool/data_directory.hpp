// The pool manager's data directory: the lock that makes it one process's, the place of each pool
// in it, and the way out for what is no longer wanted. What is wanted, the caller knows.
//
//   {data}/lock                 held for as long as the process lives
//   {data}/pool.db              PoolStore
//   {data}/pools/{name}         see slot.hpp
//   {data}/trash                set aside, being removed
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "necrocode/base/file.hpp"

namespace necrocode::pool {

/// Thread-safe.
class DataDirectory {
 public:
  /// Made when there is none. Throws ResourceConflictError when another manager has it, or
  /// StorageError.
  explicit DataDirectory(std::filesystem::path folder);

  std::filesystem::path database() const { return folder_ / "pool.db"; }
  std::filesystem::path pools() const { return folder_ / "pools"; }
  std::filesystem::path pool(const std::string& name) const { return pools() / name; }
  std::filesystem::path trash() const { return folder_ / "trash"; }

  /// Moves what is to be removed out of the way; the removal itself may take long. Where it is now.
  std::filesystem::path set_aside(const std::filesystem::path& path) const;
  /// The same for all of `parent` whose name is not `known`; adds where they are to `aside`.
  void set_strangers_aside(const std::filesystem::path& parent,
                           const std::function<bool(const std::string&)>& known,
                           std::vector<std::filesystem::path>& aside) const;
  /// Does nothing when it is not there; logs when it cannot be removed.
  static void remove_stranger(const std::filesystem::path& path);

 private:
  std::filesystem::path folder_;
  FileDescriptor lock_;
};

}  // namespace necrocode::pool
