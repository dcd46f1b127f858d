// Refs, index and logs of a git directory as plain data (gitrepository-layout(5)), written by git's
// own protocol: NAME.lock, made by whoever may change NAME, is renamed over it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "necrocode/exec/plain_folder.hpp"

namespace necrocode::exec {

/// As a value of git's configuration, or a pattern of its attributes: in double quotes.
std::string in_quotes(std::string_view text);

/// By full name: "refs/heads/main".
using Refs = std::map<std::string, std::string>;

/// Branches, tags and remote-tracking branches with a full object id; others are left out. Throws
/// ResourceLimitError when there are more than 100 000.
Refs read_refs(const PlainFolder& git_dir);
/// The commit of one of them, or nothing.
std::string ref_in(const Refs& refs, const std::string& name);
/// As git's `packed-refs`.
std::string packed(const Refs& refs);

/// PATH.lock, with the new content, from make() on. One that was not committed goes with the
/// object.
class LockedFile {
 public:
  /// Nothing when somebody else has it locked, or it has no room. Throws StorageError.
  static std::optional<LockedFile> make(const PlainFolder& folder, const std::string& path,
                                        std::string_view bytes);
  LockedFile(LockedFile&& other) noexcept;
  LockedFile& operator=(LockedFile&& other) noexcept;
  ~LockedFile();
  void commit();

 private:
  LockedFile(const PlainFolder& folder, std::string path);
  const PlainFolder* folder_;  ///< null: committed, or moved from
  std::string path_;
};

/// What `git update-ref NAME TO FROM` would do, up to the commit(); `from` empty: it must not
/// exist. Nothing when it is not at `from`, or somebody else is changing it. Throws StorageError.
std::optional<LockedFile> lock_ref(const PlainFolder& git_dir, const std::string& name,
                                   const std::string& from, const std::string& to);

/// Copies the index, and what a split one shares, into the folder `to`; the time stays, by which
/// git knows what it must look at again. False when there is none.
bool copy_index(const PlainFolder& git_dir, const std::filesystem::path& to);

/// Adds to `logs/NAME`; makes it where `make`. Leaves out what cannot be written.
void append_log(const PlainFolder& git_dir, const std::string& name, const std::string& line,
                bool make);

}  // namespace necrocode::exec
