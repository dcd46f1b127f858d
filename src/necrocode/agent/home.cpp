#include "necrocode/agent/home.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <system_error>
#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::agent {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kTemplateEntries = 10'000;
constexpr std::uint64_t kTemplateBytes = 256 * limits::kMiB;

// Some programs refuse a home below TMPDIR, so it is the other way around.
constexpr std::array<std::pair<const char*, const char*>, 6> kFolders = {{
    {"TMPDIR", ".tmp"},
    {"XDG_CONFIG_HOME", ".config"},
    {"XDG_CACHE_HOME", ".cache"},
    {"XDG_DATA_HOME", ".local/share"},
    {"XDG_STATE_HOME", ".local/state"},
    {"XDG_RUNTIME_DIR", ".run"},
}};

[[noreturn]] void refuse(const fs::path& from, const std::string& why) {
  throw ConfigError("the home template " + printable(from.string()) + " " + why);
}

// Nothing that is written below the copy later can be led out of it by one.
bool stays_below(const fs::path& target) {
  return !target.empty() && target.is_relative() &&
         std::find(target.begin(), target.end(), "..") == target.end();
}

void copy_entry(const fs::directory_entry& entry, const fs::path& from, const fs::path& to) {
  const std::string name = entry.path().lexically_relative(from).string();
  const fs::file_status status = entry.symlink_status();
  if (fs::is_symlink(status)) {
    if (!stays_below(fs::read_symlink(entry.path()))) {
      refuse(from, "has a link that leads elsewhere: " + printable(name));
    }
    fs::copy_symlink(entry.path(), to);
  } else if (fs::is_directory(status)) {
    fs::create_directory(to);
    fs::permissions(to, fs::perms::owner_all);
  } else if (fs::is_regular_file(status)) {
    fs::copy_file(entry.path(), to);
    fs::permissions(to, (status.permissions() & fs::perms::owner_all) | fs::perms::owner_read |
                            fs::perms::owner_write);
  }
}

void copy_template(const fs::path& from, const fs::path& home) {
  std::error_code error;
  if (!fs::is_directory(from, error)) refuse(from, "is no folder");
  std::size_t entries = 0;
  std::uint64_t bytes = 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(from)) {
    if (++entries > kTemplateEntries) {
      refuse(from, "has more than " + std::to_string(kTemplateEntries) + " entries");
    }
    if (entry.symlink_status().type() == fs::file_type::regular) bytes += entry.file_size();
    if (bytes > kTemplateBytes) {
      refuse(from, "is larger than " + std::to_string(kTemplateBytes / limits::kMiB) + " MiB");
    }
    copy_entry(entry, from, home / entry.path().lexically_relative(from));
  }
}

}  // namespace

void make_home(const fs::path& home, const fs::path& from,
               const std::map<std::string, std::string>& files) {
  try {
    fs::create_directories(home.parent_path());
    if (!fs::create_directory(home)) return;
    fs::permissions(home, fs::perms::owner_all);
    if (!from.empty()) copy_template(from, home);
    for (const auto& [variable, folder] : kFolders) {
      fs::create_directories(home / folder);
      fs::permissions(home / folder, fs::perms::owner_all);
    }
    for (const auto& [path, content] : files) {
      fs::create_directories((home / path).parent_path());
      write_file_atomic(home / path, content, 0600);
    }
  } catch (const fs::filesystem_error& error) {
    throw StorageError("cannot make the home of an agent program: " + std::string(error.what()));
  }
}

std::vector<std::string> home_environment(const fs::path& home) {
  std::vector<std::string> env = {"HOME=" + home.string()};
  for (const auto& [variable, folder] : kFolders) {
    env.push_back(std::string(variable) + "=" + (home / folder).string());
  }
  return env;
}

}  // namespace necrocode::agent
