// Processes that outlived their lease: found by what they hold open, and ended before a slot is
// cleaned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>

namespace necrocode::pool {

struct SlotProcesses {
  std::size_t ended = 0;
  std::size_t left = 0;  ///< still hold the folder
};

/// Now, in clock ticks since the machine's start, as /proc counts.
std::uint64_t ticks_since_boot();

/// Looks for processes, but this one, whose working directory, root or an open file is below
/// `folder` (no links in it). Those that began after `lease_begin` were started in the lease, and
/// are killed; an older one is the holder itself, who asked for the slot, and is left alone (the
/// caller must not let the next holder have the same folders). Nothing for `lease_begin`: nobody is
/// killed. Sees only what /proc lets us see: processes of other users stay unseen to an ordinary
/// user, and could not have written here either.
SlotProcesses end_processes_in(const std::filesystem::path& folder,
                               std::optional<std::uint64_t> lease_begin);

}  // namespace necrocode::pool
