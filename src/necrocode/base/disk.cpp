#include "necrocode/base/disk.hpp"

#include <system_error>

namespace necrocode {

std::optional<std::string> disk_defect(const std::filesystem::path& folder,
                                       std::uint64_t free_min) {
  std::error_code error;
  const bool there = std::filesystem::is_directory(folder, error);
  if (!there) return "the folder " + folder.string() + " is gone";
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (error) return "cannot look at the disk of " + folder.string() + ": " + error.message();
  if (space.available >= free_min) return std::nullopt;
  return "the disk of " + folder.string() + " is full: " + std::to_string(space.available) +
         " bytes are left";
}

}  // namespace necrocode
