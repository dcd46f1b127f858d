#include "necrocode/runner/change_set.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/edits.hpp"
#include "necrocode/llm/unified_diff.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/runner/beneath.hpp"
#include "necrocode/runner/task_context.hpp"

namespace necrocode::runner {
namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw SecurityError("refused path \"" + printable(shorten(path, 200)) + "\": " + why);
}

struct Existing {
  std::string content;
  mode_t mode = 0644;
};

// What stands at `path`, or nothing; throws for what may not be touched.
std::optional<Existing> inspect(int root, const std::string& path, std::size_t bytes_max) {
  // O_NONBLOCK: opening a FIFO must not wait for its other end.
  FileDescriptor file = open_beneath(root, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!file) {
    if (errno == ENOENT || errno == ENOTDIR) {
      if (errno == ENOTDIR) refuse(path, "a part of it is a file, not a folder");
      return std::nullopt;
    }
    if (errno == ELOOP) refuse(path, "it leads through a symbolic link");
    if (errno == EXDEV) refuse(path, "it leads out of the workspace");
    refuse(path, std::strerror(errno));
  }
  struct stat info = {};
  if (::fstat(file.get(), &info) != 0) throw_errno("cannot look at", path);
  if (!S_ISREG(info.st_mode)) refuse(path, "it is not a regular file");
  if (info.st_nlink > 1) refuse(path, "it is a hard link, shared with another file");
  if (static_cast<std::size_t>(info.st_size) > bytes_max) {
    throw ImplementationError("\"" + printable(path) + "\" is too large to change");
  }
  Existing existing;
  existing.mode = info.st_mode & 0777;
  existing.content.resize(static_cast<std::size_t>(info.st_size));
  std::size_t filled = 0;
  while (filled < existing.content.size()) {
    const ssize_t got =
        ::read(file.get(), existing.content.data() + filled, existing.content.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("cannot read", path);
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  existing.content.resize(filled);
  return existing;
}

// One change, decided: what stands there now and what shall.
struct Planned {
  std::string path;
  std::optional<Existing> before;
  std::optional<std::string> after;  ///< nothing: no file
};

// The new text of a file that stands there.
std::string modified(const llm::CodeChange& change, const std::string& before,
                     llm::WorkBudget& budget) {
  if (change.content) return *change.content;
  if (!change.diff.empty()) return llm::apply_diff(change.file_path, before, change.diff, budget);
  return llm::apply_edits(change.file_path, before, change.edits, budget);
}

// Files that make git itself do things for whoever clones the repository.
void check_content(const std::string& path, const std::string& content) {
  const std::string name = ascii_lower(path.substr(path.rfind('/') + 1));
  if (name == ".gitmodules") refuse(path, "a change may not define submodules");
  if (name == ".gitattributes" && content.find("filter=") != std::string::npos) {
    refuse(path, "a change may not name content filters");
  }
}

// The paths of an answer, with what happens at each.
using Operations = std::map<std::string, llm::Operation>;

// Calls `look` with each folder on the way to `path`, from the outermost.
template <class Look>
void for_each_folder_of(const std::string& path, Look look) {
  for (std::size_t slash = path.find('/'); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    look(path.substr(0, slash));
  }
}

// A path cannot be a file and a folder. Deleting the file makes room for a folder; deleting what is
// in a folder makes no room for a file, since the folder may hold more than the answer knows of.
void check_paths_agree(const Operations& operations) {
  for (const auto& [path, operation] : operations) {
    for_each_folder_of(path, [&, &inner = path](const std::string& folder) {
      const auto outer = operations.find(folder);
      if (outer == operations.end() || outer->second == llm::Operation::kDelete) return;
      throw ImplementationError("the changes contradict each other: \"" + printable(folder) +
                                "\" would be a file, and \"" + printable(inner) +
                                "\" lies in a folder of that name");
    });
  }
}

bool in_place_of_deleted_file(const std::string& path, const Operations& operations) {
  bool found = false;
  for_each_folder_of(path, [&](const std::string& folder) {
    const auto outer = operations.find(folder);
    found = found || (outer != operations.end() && outer->second == llm::Operation::kDelete);
  });
  return found;
}

Planned plan(int root, const llm::CodeChange& change, const Operations& operations,
             const std::vector<std::string>& readonly_files, llm::WorkBudget& budget) {
  Planned planned{change.file_path, {}, {}};
  if (matches_any(readonly_files, change.file_path)) {
    throw ImplementationError("\"" + printable(change.file_path) + "\" is read-only for this task");
  }
  // Below a file that this answer deletes there is nothing; that it is a file, its own plan checks.
  if (!in_place_of_deleted_file(change.file_path, operations)) {
    planned.before = inspect(root, change.file_path, limits::kCodeChangeFileBytes);
  }
  switch (change.operation) {
    case llm::Operation::kDelete:
      break;
    case llm::Operation::kCreate:
      planned.after = change.content.value_or("");
      break;
    case llm::Operation::kModify:
      if (!planned.before) {
        throw ImplementationError("\"" + printable(change.file_path) +
                                  "\" cannot be modified: there is no such file");
      }
      planned.after = modified(change, planned.before->content, budget);
  }
  if (planned.after) check_content(planned.path, *planned.after);
  return planned;
}

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::string name_of(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

// What was done, in order, so that it can be undone in reverse.
struct Step {
  std::string path;
  const Planned* file = nullptr;  ///< nothing: the folder `path` was made
};
using Journal = std::vector<Step>;

// Opens the folder of `path`, making the missing ones, step by step without following links.
FileDescriptor open_parent(int root, const std::string& path, Journal& journal) {
  for_each_folder_of(path, [&](const std::string& part) {
    const FileDescriptor above = open_beneath(root, parent_of(part), O_PATH | O_DIRECTORY);
    if (!above) refuse(path, "a part of it is not a folder");
    if (::mkdirat(above.get(), name_of(part).c_str(), 0755) == 0) {
      journal.push_back({part, nullptr});
    } else if (errno != EEXIST) {
      throw_errno("cannot create the folder", part);
    }
  });
  FileDescriptor folder = open_beneath(root, parent_of(path), O_RDONLY | O_DIRECTORY);
  if (!folder) refuse(path, "a part of it is not a folder, or a link");
  return folder;
}

void write_file_at(int root, const std::string& path, const std::string& content, mode_t mode,
                   Journal& journal) {
  const FileDescriptor folder = open_parent(root, path, journal);
  const std::string temporary = ".necrocode-" + random_hex(8);
  FileDescriptor file(::openat(folder.get(), temporary.c_str(),
                               O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!file) throw_errno("cannot write", path);
  try {
    write_all(file.get(), content);
    if (::fchmod(file.get(), mode) != 0) throw_errno("cannot set the mode of", path);
    if (::renameat(folder.get(), temporary.c_str(), folder.get(), name_of(path).c_str()) != 0) {
      throw_errno("cannot replace", path);
    }
  } catch (...) {
    ::unlinkat(folder.get(), temporary.c_str(), 0);
    throw;
  }
}

void remove_at(int root, const std::string& path, int flags) {
  const FileDescriptor folder = open_beneath(root, parent_of(path), O_RDONLY | O_DIRECTORY);
  if (!folder) return;
  if (::unlinkat(folder.get(), name_of(path).c_str(), flags) != 0 && errno != ENOENT) {
    throw_errno("cannot delete", path);
  }
}

// In the journal once it is done: renaming and unlinking are the last that can fail. So a file also
// stands after the folders that were made for it.
void apply(int root, const Planned& planned, Journal& journal) {
  if (planned.after) {
    write_file_at(root, planned.path, *planned.after, planned.before ? planned.before->mode : 0644,
                  journal);
  } else {
    remove_at(root, planned.path, 0);
  }
  journal.push_back({planned.path, &planned});
}

void undo_step(int root, const Step& step) {
  if (!step.file) {
    remove_at(root, step.path, AT_REMOVEDIR);
  } else if (step.file->before) {
    Journal none;
    write_file_at(root, step.path, step.file->before->content, step.file->before->mode, none);
  } else {
    remove_at(root, step.path, 0);
  }
}

// Back to how it was, as far as it goes: one step that fails does not keep the others from it.
void undo(int root, const Journal& journal) {
  for (auto step = journal.rbegin(); step != journal.rend(); ++step) {
    try {
      undo_step(root, *step);
    } catch (const std::exception& error) {
      log::error("cannot undo a change of the workspace",
                 {{"path", step->path}, {"error", error.what()}});
    }
  }
}

FileDescriptor open_root(const std::filesystem::path& root) {
  FileDescriptor folder(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) throw_errno("cannot open the workspace", root.string());
  return folder;
}

}  // namespace

std::vector<std::string> apply_changes(const std::filesystem::path& root,
                                       const std::vector<llm::CodeChange>& changes,
                                       const std::vector<std::string>& readonly_files) {
  const FileDescriptor folder = open_root(root);
  Operations operations;
  for (const llm::CodeChange& change : changes)
    operations.emplace(change.file_path, change.operation);
  check_paths_agree(operations);
  std::vector<Planned> plans;
  llm::WorkBudget budget;
  for (const llm::CodeChange& change : changes) {
    plans.push_back(plan(folder.get(), change, operations, readonly_files, budget));
  }
  // Files go first: one may make room for a folder of its name.
  std::stable_partition(plans.begin(), plans.end(),
                        [](const Planned& planned) { return !planned.after; });

  Journal journal;
  try {
    for (const Planned& planned : plans) apply(folder.get(), planned, journal);
  } catch (...) {
    undo(folder.get(), journal);
    throw;
  }
  std::vector<std::string> paths;
  for (const Planned& planned : plans) paths.push_back(planned.path);
  return paths;
}

std::optional<std::string> read_workspace_file(const std::filesystem::path& root,
                                               const std::string& path, std::size_t bytes_max) {
  try {
    auto existing = inspect(open_root(root).get(), path, bytes_max);
    if (existing) return std::move(existing->content);
  } catch (const RunnerError&) {
    // A link, a special file or one too large: for the prompt it is as if it were not there.
  }
  return std::nullopt;
}

}  // namespace necrocode::runner
