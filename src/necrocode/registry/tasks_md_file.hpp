// Ticks a tasks.md that people edit at the same time.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "necrocode/registry/tasks_md.hpp"

namespace necrocode::registry {

/// The text of a regular file of at most 16 MiB; a link is followed. Throws StorageError, or
/// ResourceLimitError when it is larger.
std::string read_tasks_md(const std::filesystem::path& path);

struct TickOptions {
  bool dry_run = false;  ///< says what would change
  /// Called when the new text is ready, before the file is looked at again.
  std::function<void()> before_replace{};
};

/// tick_tasks_md() on a file, in one step for readers, and durable; its mode stays, its owner
/// where we may give files away. A change that somebody makes meanwhile is kept: the file is read
/// anew, at most three times; then throws ResourceConflictError, and nothing is written. A link
/// stays one, what it points to is replaced. Throws as read_tasks_md().
TickResult tick_tasks_md_file(const std::filesystem::path& path,
                              const std::map<std::string, WantedBox>& wanted,
                              const TickOptions& options = {});

}  // namespace necrocode::registry
