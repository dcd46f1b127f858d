#include "necrocode/exec/tree_entries.hpp"

#include <string_view>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/runner/task_context.hpp"

namespace necrocode::exec {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLink = "120000";
constexpr std::string_view kProgram = "100755";
constexpr std::string_view kSubmodule = "160000";

[[noreturn]] void unreadable() {
  ErrorInfo info;
  info.service = "git";
  throw git::GitError("git's answer cannot be read", std::move(info));
}

}  // namespace

std::vector<TreeDifference> compare_trees(const git::Repository& repository,
                                          const std::string& from, const std::string& to,
                                          const CallContext& context) {
  const std::string output = repository.run(
      {"diff-tree", "-r", "-z", "--raw", "--no-abbrev", "--no-renames", from, to}, context);
  // ":OLD_MODE NEW_MODE OLD_ID NEW_ID STATUS" NUL PATH NUL
  std::vector<TreeDifference> differences;
  const std::vector<std::string_view> parts = split(output, '\0');
  for (std::size_t i = 0; i + 1 < parts.size(); i += 2) {
    const std::vector<std::string_view> fields = split(parts[i], ' ');
    if (fields.size() != 5 || !fields[0].starts_with(':')) unreadable();
    differences.push_back({std::string(fields[0].substr(1)), std::string(fields[1]),
                           std::string(fields[2]), std::string(fields[3]),
                           std::string(parts[i + 1])});
  }
  return differences;
}

void put_back_files(const git::Repository& repository, const PlainFolder& work_tree,
                    const std::vector<TreeDifference>& differences, const CallContext& context) {
  std::string ids;
  for (const TreeDifference& file : differences) {
    if (!file.was_there()) {
      if (!work_tree.remove(file.path)) {
        throw StorageError("cannot remove " + printable(file.path));
      }
    } else if (file.old_mode != kSubmodule) {
      ids += file.old_id + "\n";
    }
  }
  if (ids.empty()) return;
  const std::string contents = repository.run({"cat-file", "--batch"}, context, ids);
  std::string_view rest = contents;
  for (const TreeDifference& file : differences) {
    if (!file.was_there() || file.old_mode == kSubmodule) continue;
    // "ID blob SIZE" LF CONTENT LF
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) unreadable();
    const std::vector<std::string_view> header = split(rest.substr(0, end), ' ');
    const auto size = header.size() == 3 ? parse_uint(header[2]) : std::nullopt;
    if (!size || header[0] != file.old_id || rest.size() - end - 1 <= *size) unreadable();
    const std::string_view content = rest.substr(end + 1, *size);
    rest.remove_prefix(end + 2 + *size);
    if (file.old_mode == kLink) {
      work_tree.write_link(file.path, std::string(content));
    } else {
      work_tree.write(file.path, content, file.old_mode == kProgram ? 0755 : 0644);
    }
  }
}

std::vector<std::string> made_files(const fs::path& work_tree,
                                    const std::vector<std::string>& globs,
                                    const std::set<std::string>& tracked,
                                    const std::set<std::string>& users) {
  std::vector<std::string> made;
  std::error_code error;
  fs::recursive_directory_iterator entries(work_tree, fs::directory_options::skip_permission_denied,
                                           error);
  for (; !error && entries != fs::recursive_directory_iterator(); entries.increment(error)) {
    const std::string path = entries->path().lexically_relative(work_tree).generic_string();
    if (path == ".git" || users.contains(path)) {
      entries.disable_recursion_pending();
      continue;
    }
    std::error_code ignored;
    if (fs::is_directory(entries->symlink_status(ignored)) || tracked.contains(path)) continue;
    if (runner::matches_any(globs, path)) made.push_back(path);
  }
  if (error) throw StorageError("the work tree cannot be looked through: " + error.message());
  return made;
}

}  // namespace necrocode::exec
