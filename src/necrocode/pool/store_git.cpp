#include "necrocode/pool/store_git.hpp"

#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "necrocode/base/file.hpp"
#include "necrocode/observe/log.hpp"
#include "necrocode/pool/refusal.hpp"

namespace necrocode::pool {
namespace {

namespace fs = std::filesystem;

const std::string kAllHeads = "+refs/heads/*:refs/remotes/origin/*";

void remove_store_locks(const fs::path& store) {
  std::error_code error;
  std::vector<fs::path> locks;
  for (const char* folder : {"", "refs", "objects/info"}) {
    for (fs::recursive_directory_iterator it(store / folder, error), end; !error && it != end;
         it.increment(error)) {
      if (*folder == '\0') it.disable_recursion_pending();
      if (it->path().extension() == ".lock") locks.push_back(it->path());
    }
    error.clear();
  }
  for (const fs::path& lock : locks) fs::remove(lock, error);
}

}  // namespace

StoreView look_at(const git::Repository& store, const std::string& branch,
                  const CallContext& context) {
  const auto commit = store.resolve("refs/remotes/origin/" + branch, context);
  if (!commit)
    std::rethrow_exception(invalid("/base_branch", "the repository has no branch of that name"));
  return {branch, *commit};
}

StoreView open_store(const git::Git& git, const git::Repository& store, const std::string& url,
                     std::string branch, bool& fetched, const CallContext& context) {
  std::error_code error;
  remove_store_locks(store.git_dir());
  if (!branch.empty() && fs::exists(store.git_dir() / "config", error)) {
    try {
      return look_at(store, branch, context);
    } catch (const TimeoutError&) {
      throw;  // says nothing of the store, which live leases may share
    } catch (const RunnerError& unusable) {
      log::warn("pool store is unusable and made anew", {{"reason", unusable.what()}});
      if (!remove_tree(store.git_dir())) throw;
    }
  }
  if (branch.empty()) {
    const auto head = git.remote_head_branch(url, context);
    if (!head) std::rethrow_exception(invalid("/repo_url", "the repository has no default branch"));
    branch = *head;
  }
  store.init({}, context);
  store.fetch(url, {kAllHeads}, context, true);
  fetched = true;
  return look_at(store, branch, context);
}

StoreView fetch_store(const git::Repository& store, const std::string& url,
                      const std::string& branch, const CallContext& context) {
  store.fetch(url, {kAllHeads}, context, true);
  return look_at(store, branch, context);
}

Target resolve_ref(const git::Repository& store, const std::string& url, const std::string& ref,
                   const std::string& base_branch, const CallContext& context) {
  store.fetch(url, {kAllHeads}, context, true);
  if (git::is_branch_name(ref)) {
    if (const auto commit = store.resolve("refs/remotes/origin/" + ref, context))
      return {ref, *commit};
  }
  const bool is_id = git::is_object_id(ref);
  if (is_id) {
    if (const auto commit = store.resolve(ref, context)) return {base_branch, *commit};
  }
  const std::string local = "refs/necrocode/" + std::string(is_id ? "commits/" : "tags/") + ref;
  try {
    store.fetch(url, {"+" + (is_id ? ref : "refs/tags/" + ref) + ":" + local}, context);
  } catch (const git::GitError&) {
    std::rethrow_exception(invalid("/ref", "the repository has no such branch, tag or commit"));
  }
  const auto commit = store.resolve(local, context);
  if (!commit) std::rethrow_exception(invalid("/ref", "it is not a commit"));
  return {base_branch, *commit};
}

}  // namespace necrocode::pool
