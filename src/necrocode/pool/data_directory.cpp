#include "necrocode/pool/data_directory.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <utility>

#include "necrocode/base/ids.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/pool/refusal.hpp"

namespace necrocode::pool {
namespace {

namespace fs = std::filesystem;

/// Exclusive for as long as the process lives; gone with it.
FileDescriptor lock_data_directory(const fs::path& data_dir) {
  std::error_code error;
  fs::create_directories(data_dir / "pools", error);
  if (error) throw StorageError("cannot create " + data_dir.string() + ": " + error.message());
  const fs::path path = data_dir / "lock";
  FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!file) throw_errno("cannot open", path.string());
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    std::string holder;
    try {
      holder = std::string(trim(read_file(path, 64)));
    } catch (const StorageError&) {
      holder = "?";
    }
    fail<ResourceConflictError>("another process (" + holder + ") serves the pools of this folder",
                                data_dir.string());
  }
  if (::ftruncate(file.get(), 0) != 0) throw_errno("cannot write", path.string());
  write_all(file.get(), std::to_string(::getpid()) + "\n");
  return file;
}

}  // namespace

DataDirectory::DataDirectory(fs::path folder)
    : folder_(std::move(folder)), lock_(lock_data_directory(folder_)) {}

fs::path DataDirectory::set_aside(const fs::path& path) const {
  std::error_code error;
  fs::create_directories(trash(), error);
  const fs::path aside = trash() / random_hex(8);
  fs::rename(path, aside, error);
  return error ? path : aside;
}

void DataDirectory::set_strangers_aside(const fs::path& parent,
                                        const std::function<bool(const std::string&)>& known,
                                        std::vector<fs::path>& aside) const {
  std::error_code error;
  for (fs::directory_iterator it(parent, error), end; !error && it != end; it.increment(error)) {
    if (!known(it->path().filename().string())) aside.push_back(set_aside(it->path()));
  }
}

void DataDirectory::remove_stranger(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error))) return;
  if (!remove_tree(path)) log::warn("cannot remove what is left over", {{"path", path.string()}});
}

}  // namespace necrocode::pool
