#include "necrocode/exec/steering_files.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::exec {
namespace {

constexpr std::size_t kFileBytes = limits::kMiB;
constexpr std::size_t kAllBytes = 64 * limits::kMiB;
constexpr std::size_t kFilesMax = 100'000;
constexpr std::size_t kToldMax = 1000;
constexpr int kDepthMax = 32;
constexpr int kInnerDepthMax = 8;

// gitrepository-layout(5): what makes git do or believe something.
constexpr std::array kSteering = {
    "config",    "config.worktree", "hooks",   "info",         "objects/info",
    "commondir", "gitdir",          "shallow", "refs/replace",
};
constexpr std::array kRefs = {"HEAD", "packed-refs", "refs"};
// Git directories of others, in this one.
constexpr std::array<std::string_view, 2> kInner = {"modules", "worktrees"};

// Written by git itself, from what is there.
bool is_derived(const std::string& path) {
  return path == "objects/info/packs" || path == "info/refs";
}

}  // namespace

bool SteeringFiles::Kept::operator==(const Kept& other) const {
  if (status.st_mode != other.status.st_mode) return false;
  if (content && other.content) return content == other.content;
  const auto& a = status.st_ctim;
  const auto& b = other.status.st_ctim;
  return status.st_size == other.status.st_size && status.st_ino == other.status.st_ino &&
         a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

SteeringFiles::SteeringFiles(const PlainFolder& git_dir, bool with_refs)
    : git_dir_(git_dir), with_refs_(with_refs), files_(look()) {
  if (files_.size() > kFilesMax) {
    throw ResourceLimitError("a git directory has more than 100 000 hooks, refs and settings");
  }
}

SteeringFiles::Files SteeringFiles::look() const {
  Files files;
  std::size_t bytes = 0;
  for (const char* path : kSteering) look_at(path, 0, bytes, files);
  for (const char* path : kRefs) {
    if (with_refs_) look_at(path, 0, bytes, files);
  }
  look_at_repositories(".", 0, bytes, files);
  return files;
}

// Those of submodules, which may have slashes in their names, and of what these hold.
void SteeringFiles::look_at_repositories(const std::string& folder, int depth, std::size_t& bytes,
                                         Files& files) const {
  const std::string prefix = folder == "." ? "" : folder + "/";
  for (const std::string_view kind : kInner) {
    const std::string inner(kind);
    for (const std::string& name : git_dir_.names(prefix + inner)) {
      look_at_repository(prefix + inner + "/" + name, depth, bytes, files);
    }
  }
}

void SteeringFiles::look_at_repository(const std::string& path, int depth, std::size_t& bytes,
                                       Files& files) const {
  const auto status = git_dir_.look(path);
  if (!status || !S_ISDIR(status->st_mode)) return look_at(path, 0, bytes, files);
  for (const char* steering : kSteering) look_at(path + "/" + steering, 0, bytes, files);
  if (depth == kInnerDepthMax) return;
  look_at_repositories(path, depth + 1, bytes, files);
  if (git_dir_.look(path + "/HEAD")) return;
  for (const std::string& name : git_dir_.names(path)) {
    const auto below = git_dir_.look(path + "/" + name);
    const bool known = std::find(kInner.begin(), kInner.end(), name) != kInner.end();
    if (below && S_ISDIR(below->st_mode) && !known) {
      look_at_repository(path + "/" + name, depth + 1, bytes, files);
    }
  }
}

void SteeringFiles::look_at(const std::string& path, int depth, std::size_t& bytes,
                            Files& files) const {
  const auto status = git_dir_.look(path);
  if (!status || is_derived(path)) return;
  if (S_ISDIR(status->st_mode) && depth < kDepthMax) {
    for (const std::string& name : git_dir_.names(path)) {
      look_at(path + "/" + name, depth + 1, bytes, files);
    }
    return;
  }
  if (files.size() > kFilesMax) return;
  Kept kept{*status, std::nullopt};
  if (S_ISLNK(status->st_mode)) kept.content = git_dir_.link(path);
  if (S_ISREG(status->st_mode) && bytes < kAllBytes) kept.content = git_dir_.read(path, kFileBytes);
  if (kept.content) bytes += kept.content->size();
  files.emplace(path, std::move(kept));
}

std::vector<SteeringFiles::Difference> SteeringFiles::put_back() const {
  std::vector<Difference> differences;
  Files now = look();
  const auto value = [&](const std::string& path) {
    const auto found = now.find(path);
    const bool is_ref = path == "HEAD" || path.starts_with("refs/");
    return is_ref && found != now.end() ? std::string(trim(found->second.content.value_or("")))
                                        : std::string();
  };
  std::size_t planted = 0;
  for (;;) {
    std::size_t removed = 0;
    for (const auto& [path, kept] : now) {
      if (files_.contains(path)) continue;
      const bool lost = !git_dir_.remove(path);
      if (!lost) ++removed;
      if (++planted <= kToldMax) differences.push_back({path, lost, value(path)});
    }
    if (now.size() <= kFilesMax || removed == 0) break;  // else one look did not see all
    now = look();
  }
  if (planted > kToldMax) {
    differences.push_back({"(" + std::to_string(planted - kToldMax) + " further files)"});
  }
  for (const auto& [path, kept] : files_) {
    const auto found = now.find(path);
    if (found != now.end() && found->second == kept) continue;
    differences.push_back({path, !kept.content, value(path)});
    if (!kept.content) continue;
    if (S_ISLNK(kept.status.st_mode)) {
      git_dir_.write_link(path, *kept.content);
    } else {
      git_dir_.write(path, *kept.content, kept.status.st_mode & 07777);
    }
  }
  return differences;
}

void SteeringFiles::accept(const std::string& path) {
  files_.erase(path);
  std::size_t bytes = 0;
  look_at(path, 0, bytes, files_);
}

}  // namespace necrocode::exec
