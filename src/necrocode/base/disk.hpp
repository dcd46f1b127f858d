// The disk that a service stands on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "necrocode/base/limits.hpp"

namespace necrocode {

/// Why a service cannot work in `folder`: it is gone, or its disk has less than `free_min` bytes
/// left. Nothing when it can. Thread-safe; does not throw.
std::optional<std::string> disk_defect(const std::filesystem::path& folder,
                                       std::uint64_t free_min = limits::kDiskFreeMin);

}  // namespace necrocode
