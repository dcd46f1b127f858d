// CloneConfig: the settings of a user's clone, read as data: nothing that they name is run, and
// nothing that they include is read.
#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "necrocode/git/repository.hpp"

namespace necrocode::exec {

class CloneConfig {
 public:
  /// Of ~/.config/git/config, ~/.gitconfig (as HOME and XDG_CONFIG_HOME say), then of `files`;
  /// later ones win. `scratch`: a folder of ours, for the time of the call. One child. Throws
  /// TaskContextValidationError when git cannot read them.
  static CloneConfig read(const git::Git& git, const std::vector<std::filesystem::path>& files,
                          const std::filesystem::path& scratch, const CallContext& context);

  /// The last value of "section.Subsection.name"; section and name in lower case.
  std::optional<std::string> get(std::string_view key) const;
  bool is_true(std::string_view key) const;
  /// A file of patterns that the user's git ignores everywhere: core.excludesFile or its default.
  std::filesystem::path excludes_file() const;

  /// The URL of the remote that `branch` follows, else of "origin", without credentials, a relative
  /// path as from `root`; nothing when there is none.
  std::optional<std::string> remote_url(const std::string& branch,
                                        const std::filesystem::path& root) const;
  std::set<std::string> remotes() const;
  /// A configuration with what a program may know of this one: identity, remotes without
  /// credentials, what branches follow, how files are checked out. No maintenance in the
  /// background.
  std::string for_program(const std::string& name, const std::string& email) const;

 private:
  std::string expanded(const std::string& url) const;
  std::vector<std::pair<std::string, std::string>> settings_;  ///< in order
};

/// `scheme://user:secret@host` without the secret; for http and https without the user, too.
std::string without_credentials(const std::string& url);

}  // namespace necrocode::exec
