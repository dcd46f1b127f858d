#include "necrocode/db/lock.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include "necrocode/base/errors.hpp"

namespace necrocode::db {

FileDescriptor lock_database(const std::filesystem::path& path, std::string_view what) {
  const std::string name = path.string() + ".lock";
  FileDescriptor file(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!file) throw_errno("cannot open", name);
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    throw ResourceConflictError("another process serves the folder " + path.parent_path().string() +
                                ": it has " + std::string(what) + " open");
  }
  return file;
}

}  // namespace necrocode::db
