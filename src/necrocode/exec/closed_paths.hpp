// Files and folders whose permissions keep us from reading them.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "necrocode/exec/plain_folder.hpp"

namespace necrocode::exec {

struct ClosedPaths {
  /// Without their owner's permissions: to read a file, to read, write and enter a folder.
  std::set<std::string> closed;
  /// That we cannot read, whoever's they are. Nothing below a folder is looked at.
  std::vector<std::string> unreadable;
};

/// Looks at everything but the `.git` at the top; through no link. At most 100 000 paths each.
ClosedPaths find_closed(const PlainFolder& work_tree);

/// The same, and gives those that are ours and not in `keep` their owner's permissions.
ClosedPaths open_closed(const PlainFolder& work_tree, const std::set<std::string>& keep);

}  // namespace necrocode::exec
