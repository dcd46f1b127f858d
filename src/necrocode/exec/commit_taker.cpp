#include "necrocode/exec/commit_taker.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/exec/program_objects.hpp"

namespace necrocode::exec {
namespace {

namespace fs = std::filesystem;

const std::string kHeads = "refs/heads/";
constexpr std::size_t kTipsMax = 100;
constexpr std::size_t kHeadBytes = 4 * limits::kKiB;
constexpr std::size_t kIndexBytes = limits::kGiB;
constexpr int kNamesTried = 9;

std::string commits_text(std::size_t count) {
  return std::to_string(count) + (count == 1 ? " commit" : " commits");
}

bool is_misleading(std::string_view branch) {
  constexpr std::array<std::string_view, 4> kFolders = {"refs/", "heads/", "tags/", "remotes/"};
  const bool like_a_path = std::any_of(kFolders.begin(), kFolders.end(),
                                       [&](auto folder) { return branch.starts_with(folder); });
  return like_a_path || branch == "HEAD" || branch == "stash" || branch.ends_with("_HEAD") ||
         git::is_object_id(branch);
}

bool is_same(const struct stat& a, const struct stat& b) {
  return a.st_ino == b.st_ino && a.st_size == b.st_size && a.st_ctim.tv_sec == b.st_ctim.tv_sec &&
         a.st_ctim.tv_nsec == b.st_ctim.tv_nsec;
}

}  // namespace

CommitTaker::CommitTaker(const git::Git& git, runner::GivenClone& clone, const PlainFolder& shown,
                         fs::path scratch, Refs refs, std::string identity,
                         std::set<std::string> remotes)
    : git_(git),
      clone_(clone),
      shown_(shown),
      scratch_(std::move(scratch)),
      refs_(std::move(refs)),
      identity_(std::move(identity)),
      remotes_(std::move(remotes)),
      git_dir_(clone.git_dir()),
      common_(clone.common_dir()),
      start_commit_(clone.head_commit()),
      tip_(start_commit_) {
  if (clone.head().starts_with("ref: " + kHeads)) start_ = clone.head().substr(5 + kHeads.size());
  known_.insert(start_commit_);
  for (const auto& [name, commit] : refs_) known_.insert(commit);
}

// What the program has that is new, the most important first: where its HEAD is, the branch that
// was checked out, and the branches that it made.
std::vector<CommitTaker::Tip> CommitTaker::tips() const {
  const Refs theirs = read_refs(shown_);
  std::vector<Tip> tips;
  std::set<std::string> seen;
  const auto add = [&](const std::string& branch, const std::string& commit) {
    const bool is_new = git::is_object_id(commit) && commit.size() == start_commit_.size() &&
                        !known_.contains(commit);
    if (is_new && tips.size() < kTipsMax && seen.insert(branch).second) {
      tips.push_back({branch, commit});
    }
  };
  const std::string head(trim(shown_.read("HEAD", kHeadBytes).value_or("")));
  if (head.starts_with("ref: " + kHeads)) {
    add(head.substr(5 + kHeads.size()), ref_in(theirs, head.substr(5)));
  } else {
    add("", head);
  }
  if (!start_.empty()) add(start_, ref_in(theirs, kHeads + start_));
  for (const auto& [name, commit] : theirs) {
    if (!name.starts_with(kHeads)) continue;
    const std::string branch = name.substr(kHeads.size());
    if (!refs_.contains(name) || made_.contains(branch)) add(branch, commit);
  }
  return tips;
}

// Of ours, over the objects of the clone.
git::Repository CommitTaker::repository() const {
  return git::Repository(git_, scratch_ / "into", clone_.root(), clone_.common_dir() / "objects");
}

void CommitTaker::fetch(const std::vector<Tip>& tips, const CallContext& context) {
  const fs::path quarantine = scratch_ / "quarantine";
  for (const fs::path& folder : {quarantine, scratch_ / "into"}) remove_tree(folder);
  const git::Repository theirs(git_, quarantine);
  theirs.init({clone_.common_dir() / "objects"}, context);
  const git::Repository into = repository();
  into.init({}, context);
  if (const std::string boundary = clone_.shallow_boundary(); !boundary.empty()) {
    write_file_atomic(quarantine / "shallow", boundary);
    write_file_atomic(into.git_dir() / "shallow", boundary);
  }
  // What is known to be there already is not sent.
  write_file_atomic(into.git_dir() / "packed-refs", packed(refs_));
  write_file_atomic(into.git_dir() / "HEAD", start_commit_ + "\n");
  std::string offered;
  for (std::size_t i = 0; i < tips.size(); ++i) {
    offered += tips[i].commit + " refs/necrocode/" + std::to_string(i) + "\n";
  }
  write_file_atomic(quarantine / "packed-refs", offered);
  try {
    for (const fs::path& pack : copy_objects(shown_, quarantine / "objects")) {
      theirs.run({"index-pack", pack.string()}, context);
    }
    into.run(
        {"-c", "fetch.fsckObjects=true", "-c", "core.alternateRefsCommand=true", "fetch", "--quiet",
         "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-maintenance",
         "--", quarantine.string(), "+refs/necrocode/*:refs/necrocode/*"},
        context);
  } catch (const git::GitError& error) {
    throw WorkspacePreparationError("the program's commits cannot be taken over", error.info());
  }
  remove_tree(quarantine);
}

std::optional<TakenCommits> CommitTaker::take(const std::string& aside,
                                              const CallContext& context) {
  const std::vector<Tip> all = tips();
  if (all.empty()) return std::nullopt;
  fetch(all, context);
  clone_.look_again();
  std::optional<TakenCommits> taken;
  for (const Tip& tip : all) {
    if (!is_commit(tip, context)) continue;
    if (!taken) {
      taken = place(tip, aside, context);
    } else if (added(tip, context).count > 0) {
      std::string refused = bad_name(tip.branch);
      if (refused.empty()) refused = make_branch(tip.branch, tip.commit, "necrocode exec");
      if (!refused.empty()) refused_.insert(kHeads + tip.branch + " (not taken: " + refused + ")");
    }
  }
  if (taken) tip_ = taken->to;
  return taken;
}

bool CommitTaker::is_commit(const Tip& tip, const CallContext& context) const {
  return trim(repository().run({"cat-file", "-t", tip.commit}, context)) == "commit";
}

CommitTaker::Added CommitTaker::added(const Tip& tip, const CallContext& context) const {
  Added added;
  const std::string counts = repository().run(
      {"rev-list", "--count", "--left-right", start_commit_ + "..." + tip.commit, "--"}, context);
  const std::vector<std::string_view> sides = split(trim(counts), '\t');
  added.rewrites = sides.front() != "0";
  added.count = sides.size() == 2 ? parse_uint(sides.back()).value_or(0) : 0;
  return added;
}

std::optional<TakenCommits> CommitTaker::place(const Tip& tip, const std::string& aside,
                                               const CallContext& context) {
  const Added more = added(tip, context);
  if (more.count == 0) return std::nullopt;  // an older commit of the clone's own
  TakenCommits taken;
  taken.from = start_commit_;
  taken.to = tip.commit;
  taken.count = more.count;
  const std::string what = "necrocode exec: " + commits_text(taken.count);
  taken.branch = tip.branch;
  if (tip.branch.empty()) {
    taken.moved_aside = "they are on no branch";
  } else if (tip.branch != start_) {
    taken.moved_aside = bad_name(tip.branch);
    if (taken.moved_aside.empty()) taken.moved_aside = make_branch(tip.branch, tip.commit, what);
  } else if (more.rewrites) {
    taken.moved_aside = "the program rewrote \"" + start_ + "\"";
  } else if (brings_repositories(tip, context)) {
    taken.moved_aside = "they bring repositories of the program's, as submodules";
  } else {
    taken.moved_aside = advance(tip, taken.count, context);
  }
  std::string refused = taken.moved_aside;
  for (int i = 1; !refused.empty(); ++i) {
    if (i > kNamesTried) {
      throw WorkspacePreparationError("no branch \"" + printable(aside) +
                                      "\" can be made for the program's commits: " + refused);
    }
    taken.branch = i == 1 ? aside : aside + "-" + std::to_string(i);
    refused = make_branch(taken.branch, tip.commit, what);
  }
  return taken;
}

// Why a branch of the program's is not called so here, or nothing: git would take it for something
// else that the user names.
std::string CommitTaker::bad_name(const std::string& branch) const {
  const std::string name = "\"" + printable(branch) + "\"";
  const std::string first = branch.substr(0, branch.find('/'));
  if (remotes_.contains(first)) return name + " could be mistaken for a branch of a remote";
  if (refs_.contains("refs/tags/" + branch)) return name + " is a tag of the clone's";
  if (is_misleading(branch)) return name + " could be mistaken for another ref";
  return {};
}

// Once such a commit is checked out, the user's git runs in those repositories, by their
// configuration.
bool CommitTaker::brings_repositories(const Tip& tip, const CallContext& context) const {
  // Of each: ":OLD_MODE NEW_MODE OLD_ID NEW_ID STATUS" TAB PATH
  std::string entries;
  try {
    entries =
        repository().run({"log", "--format=", "--raw", "-r", "-m", "--no-renames", "--root",
                          "--ignore-submodules=none", start_commit_ + ".." + tip.commit, "--"},
                         context);
  } catch (const ResourceLimitError&) {
    return true;  // too much to be looked through
  }
  for (const std::string_view line : split(entries, '\n')) {
    const std::vector<std::string_view> fields = split(line.substr(0, line.find('\t')), ' ');
    if (fields.size() > 1 && fields[1] == "160000") return true;
  }
  return false;
}

// Why not, or nothing: then the branch has them.
std::string CommitTaker::make_branch(const std::string& branch, const std::string& commit,
                                     const std::string& what) {
  const std::string name = kHeads + branch;
  const auto ours = made_.find(branch);
  if (refs_.contains(name) && ours == made_.end()) {
    return "\"" + printable(branch) + "\" is a branch of the clone's";
  }
  if (!git::is_branch_name(branch)) return "\"" + printable(branch) + "\" is no branch's name";
  const std::string from = ours == made_.end() ? "" : ours->second;
  try {
    clone_.require_room_for(branch);
  } catch (const WorkspacePreparationError& error) {
    return error.summary();
  }
  auto lock = lock_ref(common_, name, from, commit);
  if (!lock) return "\"" + printable(branch) + "\" was made in the clone meanwhile";
  lock->commit();
  log(branch, from, commit, what, false);
  made_[branch] = commit;
  refs_[name] = commit;
  known_.insert(commit);
  written_.insert(name);
  return {};
}

// The user's index brought from one commit to the other, as `git checkout` would, with what the
// user has staged; the work tree is not looked at. Nothing when something staged is in the way.
std::optional<std::string> CommitTaker::index_after(const std::string& to,
                                                    const CallContext& context) const {
  const git::Repository into = repository();
  copy_index(git_dir_, into.git_dir());
  try {
    into.run({"-c", "core.splitIndex=false", "read-tree", "-i", "-m", start_commit_, to}, context);
  } catch (const git::GitError&) {
    return std::nullopt;
  }
  return read_file(into.git_dir() / "index", kIndexBytes);
}

// Why not, or nothing: then the branch that is checked out has them, and the index follows.
std::string CommitTaker::advance(const Tip& tip, std::size_t count, const CallContext& context) {
  const std::string name = kHeads + start_;
  if (clone_.head() != "ref: " + name) return "\"" + start_ + "\" is not checked out any more";
  try {
    clone_.require_idle();
    clone_.require_room_for(start_);
  } catch (const WorkspacePreparationError& error) {
    return error.summary();
  }
  const auto index = git_dir_.look("index");
  std::optional<LockedFile> index_lock;
  if (index) {
    const auto bytes = index_after(tip.commit, context);
    if (!bytes) return "what is staged in the clone is in their way";
    index_lock = LockedFile::make(git_dir_, "index", *bytes);
    const auto now = git_dir_.look("index");
    if (!index_lock || !now || !is_same(*index, *now)) return "git is at work in the clone";
  }
  auto branch_lock = lock_ref(common_, name, start_commit_, tip.commit);
  if (!branch_lock) return "\"" + start_ + "\" has moved in the clone";
  branch_lock->commit();
  if (index_lock) index_lock->commit();
  log(start_, start_commit_, tip.commit, "necrocode exec: " + commits_text(count), true);
  refs_[name] = tip.commit;
  start_commit_ = tip.commit;
  known_.insert(tip.commit);
  written_.insert(name);
  return {};
}

// As gitrevisions(7) reads it: OLD NEW IDENTITY TIME ZONE \t MESSAGE. A clone without a reflog of
// HEAD gets none.
void CommitTaker::log(const std::string& branch, const std::string& from, const std::string& to,
                      const std::string& what, bool checked_out) const {
  if (!git_dir_.look("logs/HEAD")) return;
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(
      real_clock().system_now().time_since_epoch());
  const std::string old = from.empty() ? std::string(to.size(), '0') : from;
  const std::string line = old + " " + to + " " + identity_ + " " + std::to_string(now.count()) +
                           " +0000\t" + what + "\n";
  append_log(common_, kHeads + branch, line, true);
  if (checked_out) append_log(git_dir_, "HEAD", line, false);
}

std::vector<std::string> CommitTaker::ignored() const {
  const Refs theirs = read_refs(shown_);
  std::vector<std::string> told(refused_.begin(), refused_.end());
  for (const auto& [name, commit] : refs_) {
    const bool ours = name == kHeads + start_ ||
                      (name.starts_with(kHeads) && made_.contains(name.substr(kHeads.size())));
    if (name.starts_with("refs/remotes/")) continue;
    const std::string there = ref_in(theirs, name);
    if (there.empty() && !(ours && name != kHeads + start_)) {
      told.push_back(name + " (deleted there)");
    } else if (!ours && there != commit) {
      told.push_back(name + " (moved there)");
    }
  }
  return told;
}

}  // namespace necrocode::exec
