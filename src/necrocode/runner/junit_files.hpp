// Which JUnit reports a command wrote. A report that was there before it, and is as it was, says
// nothing of this run: what is there is looked at before the command, and again after it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "necrocode/runner/junit.hpp"

namespace necrocode::runner {

/// What lstat() says of a file. Any change of it, and any move of it, changes the change time,
/// which no program can set.
struct FileState {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::int64_t changed_ns = 0;
  friend bool operator==(const FileState&, const FileState&) = default;
};

/// Not thread-safe.
class JunitFiles {
 public:
  static constexpr std::size_t kFiles = 200;                  ///< that are read
  static constexpr std::size_t kBytes = 4 * kJunitFileBytes;  ///< of all of them
  static constexpr std::size_t kEntries = 20'000;             ///< of folders, looked at

  /// Looks at the files below `root` that match one of `globs` (as matches_any() takes them).
  JunitFiles(std::filesystem::path root, std::vector<std::string> globs);

  /// The cases of the files that are new or changed since then, at most `cases_max`. Links and
  /// special files are passed over; `warnings` tells of files that could not be read as reports.
  JunitReport read(const Masker& masker, std::size_t cases_max,
                   std::vector<std::string>& warnings) const;

 private:
  std::filesystem::path root_;
  std::vector<std::string> globs_;
  std::map<std::string, FileState> before_;
};

/// Where tools put their reports, and the commands of detect_test_commands(), below `folder` ("":
/// the repository itself). One folder each, no walk.
std::vector<std::string> usual_junit_places(const std::string& folder);

}  // namespace necrocode::runner
